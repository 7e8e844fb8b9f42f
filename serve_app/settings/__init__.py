"""Every configuration model: `args` of configs/*.yaml in, frozen and checked objects out."""

from serve_app.settings.application import PlaygroundSettings, RouterSettings, Settings
from serve_app.settings.detection import (
    SIZES,
    BaselineSettings,
    DetectionSettings,
    ModelSource,
    Size,
    TritonSettings,
)
from serve_app.settings.languages import AdapterSettings, LanguageModelSettings
from serve_app.settings.reading import (
    application_of,
    filled_in,
    mistakes,
    parse_settings,
    read_config,
    read_environment_file,
    require_closed,
    settings_of,
    traces_endpoint,
)
from serve_app.settings.section import PROJECT_ROOT, Section, from_project_root

__all__ = [
    "PROJECT_ROOT",
    "SIZES",
    "AdapterSettings",
    "BaselineSettings",
    "DetectionSettings",
    "LanguageModelSettings",
    "ModelSource",
    "PlaygroundSettings",
    "RouterSettings",
    "Section",
    "Settings",
    "Size",
    "TritonSettings",
    "application_of",
    "filled_in",
    "from_project_root",
    "mistakes",
    "parse_settings",
    "read_config",
    "read_environment_file",
    "require_closed",
    "settings_of",
    "traces_endpoint",
]
