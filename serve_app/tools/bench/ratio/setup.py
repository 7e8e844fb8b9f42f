"""What a comparison finds there: the service that runs for it, the load, and room for peers that end with it."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.clients.pictures import read_pictures
from serve_app.errors import ConfigurationError
from serve_app.settings import LanguageModelSettings, Settings, read_config, settings_of
from serve_app.tools.bench.ratio.measurements import Load, picture_turn
from serve_app.tools.bench.ratio.rounds import Contender
from serve_app.tools.bench.tracks import Service, Target
from serve_app.triton.repository import ModelRepository


@dataclass(frozen=True, slots=True)
class Stage:
    """`url` and `pid` are of the service, where one was started."""

    config: Path
    url: str
    pid: int
    pictures: Path
    load: Load
    requests: int
    peers: ExitStack

    @property
    def settings(self) -> Settings:
        return settings_of(read_config(self.config))

    @property
    def language_model(self) -> LanguageModelSettings:
        for model in self.settings.llms:
            return model
        raise ConfigurationError(f"{self.config} serves no language model")

    @property
    def repository(self) -> Path:
        settings = self.settings
        return ModelRepository.of(settings.triton[0], settings.detection).path

    @property
    def first_picture(self) -> bytes:
        return read_pictures(self.pictures)[0]

    def targets(self) -> list[Target]:
        return Service(self.url).targets()

    def track(self, name: str) -> Target:
        """Of the first size that is served."""
        for target in self.targets():
            if target.track == name:
                return target
        raise ConfigurationError(f"the configuration serves no track {name}")

    def detections(self, path: str) -> list[dict[str, Any]]:
        return Service(self.url).detect(path, self.first_picture)

    def pictures_to(self, target: Target, name: str = "", url: str = "") -> Contender:
        pictures = read_pictures(self.pictures)
        return Contender(name or target.track, lambda: picture_turn(url or self.url, target.path, pictures, self.load))
