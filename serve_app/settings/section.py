"""What every block of the configuration has in common: unknown keys are refused, objects are frozen."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.errors import near_miss

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class Section(BaseModel):
    """One block of the file: unknown keys are refused, with the nearest valid name."""

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
    """Relative paths start where the project lies, so that driver and replicas agree on them."""
    return path if path.is_absolute() else PROJECT_ROOT / path
