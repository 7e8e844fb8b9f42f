"""The application's settings as a whole: `args` of configs/*.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from serve_app.settings.detection import BaselineSettings, DetectionSettings, Size, TritonSettings
from serve_app.settings.languages import LanguageModelSettings
from serve_app.settings.section import Section

RESERVED_NAMES = ("router", "baseline", "playground", "keys")  # names of deployments that exist at most once


class Concurrency(Section):
    """What one router works on at a time, by kind; together less than the router's max_ongoing_requests."""

    detection: int = Field(512, ge=1, description="pictures, and other inferences that no language model answers")
    languages: int = Field(256, ge=1, description="requests for language models")
    streams: int = Field(128, ge=1, description="open streams of gRPC")


class RouterSettings(Section):
    """The ingress."""

    hosts: str | None = Field(
        None, description="the one of `triton` or `llms` that runs in the routers' own processes; null: none does"
    )
    max_body_mib: int = Field(64, ge=1, le=4096, description="larger HTTP bodies are refused with 413")
    at_once: Concurrency = Field(Concurrency(), description="how much of each kind it works on at a time; beyond, 503")
    max_wait_s: float = Field(
        60.0, gt=0, description="pictures that would wait longer, by the rate at which they were answered, are refused"
    )
    max_held_mib: int = Field(512, ge=1, description="bodies that one router may hold at a time; beyond, 503")
    body_rate_kib_s: float = Field(16.0, gt=0, description="a body that arrives more slowly is refused with 408")
    request_timeout_s: float = Field(300.0, gt=0, description="how long a request without its own deadline may take")
    keys_file: Path | None = Field(None, description="API keys, as scripts/keys writes them; null: none are asked for")
    keys_uncounted: Literal["allow", "refuse"] = Field(
        "allow", description="while the counter of keys is gone: each router counts alone, or refuses keys with limits"
    )
    admin_key_file: Path | None = Field(None, description="a file with the key that load and unload require")
    open_model_control: bool = Field(
        False, description="load and unload without a key; only where the ports listen on this machine alone"
    )

    @property
    def asks_for_keys(self) -> bool:
        """Whether load and unload require a key."""
        return bool(self.keys_file or self.admin_key_file)


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
        if len({*names, *RESERVED_NAMES}) != len(names) + len(RESERVED_NAMES):
            raise ValueError(
                f"names of triton and llms must be unique, and not {', '.join(RESERVED_NAMES)}; got {', '.join(names)}"
            )
        if not (self.serves_detection or self.llms):
            raise ValueError("nothing to serve: at least one of triton, baseline and llms must be set")
        if self.baseline:
            unknown = [size for size in self.baseline.sizes if size not in self.detection.models]
            if unknown:
                raise ValueError(f"baseline.sizes must be among detection.models, got {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _check_hosted(self) -> "Settings":
        name, hosted = self.router.hosts, self.hosted
        if name is not None and hosted is None:
            names = ", ".join(one.name for one in self._deployments)
            raise ValueError(f"router.hosts must be one of the names of triton and llms, {names}; got {name}")
        if isinstance(hosted, LanguageModelSettings) and hosted.workers > 1:
            raise ValueError(f"router.hosts: {name} has {hosted.workers} workers, and a router is one process")
        if isinstance(hosted, LanguageModelSettings) and hosted.scales_to_zero:
            raise ValueError(f"router.hosts: {name} scales to zero (min_replicas 0), and a router must always be there")
        return self

    @model_validator(mode="after")
    def _check_control(self) -> "Settings":
        for triton in self.triton:
            if triton.control_mode == "explicit" and not (self.router.asks_for_keys or self.router.open_model_control):
                raise ValueError(
                    f"{triton.name}: control_mode explicit needs router.keys_file or router.admin_key_file, the "
                    "keys that load and unload ask for; or router.open_model_control: true, where only this machine "
                    "reaches the ports"
                )
            if triton.control_mode == "poll" and not triton.model_repository and self.detection.engine != "openvino":
                raise ValueError(
                    f"{triton.name}: control_mode poll can't be used with detection.engine {self.detection.engine}, "
                    "which needs generated configs: use control_mode explicit"
                )
        return self

    @property
    def hosted(self) -> TritonSettings | LanguageModelSettings | None:
        """The deployment that runs inside the routers, if any."""
        return next((one for one in self._deployments if one.name == self.router.hosts), None)

    @property
    def _deployments(self) -> tuple[TritonSettings | LanguageModelSettings, ...]:
        return (*self.triton, *self.llms)

    @property
    def separate(self) -> list[TritonSettings]:
        """Triton deployments with their own replicas."""
        return [triton for triton in self.triton if triton.name != self.router.hosts]

    @property
    def separate_llms(self) -> list[LanguageModelSettings]:
        """Language models with their own replicas."""
        return [model for model in self.llms if model.name != self.router.hosts]

    @property
    def has_open_control(self) -> bool:
        """Whether whoever reaches the ports may load and unload."""
        explicit = any(triton.control_mode == "explicit" for triton in self.triton)
        return explicit and not self.router.asks_for_keys

    @property
    def as_routed(self) -> "Settings":
        """These settings without what routers don't read, so that changing the rest doesn't restart them."""
        models = tuple(model.as_routed for model in self.llms)
        return self.model_copy(update={"llms": models, "baseline": None, "playground": None})

    @property
    def serves_detection(self) -> bool:
        """Whether anything is served beside language models."""
        return bool(self.triton or self.baseline)

    @property
    def baseline_sizes(self) -> tuple[Size, ...]:
        if self.baseline is None:
            return ()
        return self.baseline.sizes or tuple(self.detection.models)
