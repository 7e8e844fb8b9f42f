"""The base of every block of the configuration: frozen, and unknown keys are refused."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.errors import near_miss

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class Section(BaseModel):
    """One block of the file; an unknown key is refused with the nearest valid name."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for key in values:
            if key not in cls.model_fields:
                valid = f"valid keys: {', '.join(cls.model_fields)}"
                raise ValueError(f"unknown key {key!r}{near_miss(str(key), cls.model_fields, valid)}")
        return values


def from_project_root(path: Path) -> Path:
    """Resolve a relative path against the project, so that driver and replicas agree on it."""
    return path if path.is_absolute() else PROJECT_ROOT / path
