"""The application's settings as a whole: `args` of configs/*.yaml."""

from pathlib import Path

from pydantic import Field, model_validator

from serve_app.settings.detection import BaselineSettings, DetectionSettings, Size, TritonSettings
from serve_app.settings.languages import LanguageModelSettings
from serve_app.settings.section import Section

TAKEN = ("router", "baseline", "playground")  # names of deployments that exist at most once


class RouterSettings(Section):
    """The ingress."""

    max_body_mib: int = Field(64, ge=1, le=4096, description="larger HTTP bodies are refused with 413")
    request_timeout_s: float = Field(300.0, gt=0, description="how long a request without its own deadline may take")
    admin_key_file: Path | None = Field(
        None, description="a file with the key that load and unload require; null: no key is required"
    )


class PlaygroundSettings(Section):
    """The page at /ui: a client of the service like any other."""

    service_url: str = Field(
        "http://localhost:8000", pattern=r"^https?://[^/\s]+$", description="where the playground reaches the service"
    )


class Settings(Section):
    """`args` of the application."""

    router: RouterSettings = RouterSettings()
    detection: DetectionSettings = DetectionSettings()
    triton: tuple[TritonSettings, ...] = (TritonSettings(name="vision"),)
    baseline: BaselineSettings | None = Field(BaselineSettings(), description="null turns track A off")
    llms: tuple[LanguageModelSettings, ...] = ()
    playground: PlaygroundSettings | None = Field(None, description="null turns the page at /ui off")

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        names = [triton.name for triton in self.triton] + [model.name for model in self.llms]
        if len({*names, *TAKEN}) != len(names) + len(TAKEN):
            raise ValueError(
                f"names of triton and llms must be unique, and not {', '.join(TAKEN)}; got {', '.join(names)}"
            )
        for triton in self.triton:
            if triton.control_mode == "poll" and not triton.model_repository and self.detection.engine != "openvino":
                raise ValueError(
                    f"{triton.name}: control_mode poll serves detection.model_repository as it is, but engine "
                    f"{self.detection.engine} needs other configs than are there: use control_mode explicit"
                )
        if not (self.serves_detection or self.llms):
            raise ValueError("nothing to serve: at least one of triton, baseline and llms must be set")
        if self.baseline:
            unknown = [size for size in self.baseline.sizes if size not in self.detection.models]
            if unknown:
                raise ValueError(f"baseline.sizes must be among detection.models, got {', '.join(unknown)}")
        return self

    @property
    def serves_detection(self) -> bool:
        """Whether anything is served beside language models."""
        return bool(self.triton or self.baseline)

    @property
    def baseline_sizes(self) -> tuple[Size, ...]:
        if self.baseline is None:
            return ()
        return self.baseline.sizes or tuple(self.detection.models)
