"""What a comparison works with: the running service, its configuration, the load, and the baselines it starts."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from serve_app.clients.pictures import read_pictures
from serve_app.errors import ConfigurationError
from serve_app.settings import LanguageModelSettings, Settings, read_config, settings_of
from serve_app.tools.bench.load import Load
from serve_app.tools.bench.ratio.measurements import measure_pictures
from serve_app.tools.bench.ratio.rounds import Side
from serve_app.tools.bench.tracks import Service, Track
from serve_app.triton.repository import ModelRepository


@dataclass(frozen=True)
class Setup:
    """`url` and `pid` are those of the service, if one was started; `baselines` ends what is entered into it."""

    config: Path
    url: str
    pid: int
    pictures: Path
    load: Load
    requests: int
    baselines: ExitStack

    @cached_property
    def settings(self) -> Settings:
        return settings_of(read_config(self.config))

    @property
    def language_model(self) -> LanguageModelSettings:
        if not self.settings.llms:
            raise ConfigurationError(f"{self.config} has no language model")
        return self.settings.llms[0]

    @property
    def repository(self) -> Path:
        return ModelRepository.of(self.settings.triton[0], self.settings.detection).path

    @property
    def picture(self) -> bytes:
        return read_pictures(self.pictures)[0]

    def tracks(self) -> list[Track]:
        return Service(self.url).tracks()

    def track(self, name: str) -> Track:
        """Of the first size that is served."""
        for track in self.tracks():
            if track.name == name:
                return track
        raise ConfigurationError(f"{self.config} does not serve track {name}")

    def detections(self, path: str) -> list[dict[str, Any]]:
        return Service(self.url).detect(path, self.picture)

    def pictures_to(self, track: Track, name: str = "", url: str = "") -> Side:
        pictures = read_pictures(self.pictures)
        return Side(name or track.name, lambda: measure_pictures(url or self.url, track.path, pictures, self.load))
