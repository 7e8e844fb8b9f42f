"""Reads a configuration file, with variables from the environment, into checked settings."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serve_app.errors import ConfigurationError
from serve_app.settings.application import Settings
from serve_app.settings.serve_names import require_known_names

LOOPBACK = "127.0.0.1"  # Ray Serve's default
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def filled_in(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Substitute `${NAME}` and `${NAME:-default}` from the environment, by default that of this process."""
    variables = os.environ if environment is None else environment
    if isinstance(value, dict):
        return {key: filled_in(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [filled_in(one, variables) for one in value]
    if not isinstance(value, str) or not VARIABLE.search(value):
        return value
    text = VARIABLE.sub(lambda found: _variable(found, variables), value)
    # A value that is a single variable is parsed as YAML, so that numbers stay numbers.
    return yaml.safe_load(text) if VARIABLE.fullmatch(value) else text


def _variable(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, default = found.groups()
    value = variables.get(name, default)
    if value is None:
        raise ConfigurationError(f"${{{name}}}: {name} is not set; set it, or write ${{{name}:-default}}")
    return value


def parse_settings(args: dict[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Check all of `args`; the error names every mistake."""
    try:
        return Settings.model_validate(filled_in(args, environment))
    except ValidationError as problem:
        errors = problem.errors()
        # a list whose only item is invalid is not too short as well
        real = [error for error in errors if error["type"] != "too_short"] or errors
        raise ConfigurationError(f"invalid configuration: {mistakes(real, 'args')}") from None


def mistakes(errors: Iterable[ErrorDetails], whole: str) -> str:
    """Each error with its place in the file; `whole` is the place of errors that have none."""
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or whole}: {error['msg'].removeprefix('Value error, ')}" for error in errors
    )


def traces_endpoint() -> str:
    """The HTTP endpoint for traces, from OpenTelemetry's own variables."""
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318").rstrip("/")
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{base}/v1/traces")


def read_config(path: Path) -> dict[str, Any]:
    """The whole file that `serve run` takes."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as problem:
        raise ConfigurationError(f"{path}: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigurationError(f"{place}: not valid YAML: {getattr(problem, 'problem', problem)}") from None
    if not isinstance(content, dict) or not content.get("applications"):
        raise ConfigurationError(f"{path}: `applications:` is missing or empty")
    require_known_names(content)
    return content


def settings_of(config: dict[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of the application that `serve_app.app:build` builds."""
    settings = parse_settings(application_of(config).get("args") or {}, environment)
    require_closed(settings, (config.get("http_options") or {}).get("host", LOOPBACK))
    return settings


def require_closed(settings: Settings, host: str) -> None:
    """Whoever loads a model may run code, so without a key the ports must not be reachable from elsewhere."""
    if settings.has_open_control and host not in (LOOPBACK, "localhost", "::1"):
        raise ConfigurationError(
            f"http_options.host is {host}, so load and unload need a key: set router.keys_file or "
            f"router.admin_key_file in place of router.open_model_control, or http_options.host: {LOOPBACK}"
        )


def application_of(config: dict[str, Any]) -> dict[str, Any]:
    """The application that `serve_app.app:build` builds."""
    for application in config["applications"]:
        if application.get("import_path") == "serve_app.app:build":
            return application  # type: ignore[no-any-return]
    raise ConfigurationError("no application has import_path serve_app.app:build")


def read_environment_file(path: Path) -> dict[str, str]:
    """KEY=VALUE lines; `#` starts a comment line."""
    values = {}
    try:
        lines = path.read_text().splitlines()
    except OSError as problem:
        raise ConfigurationError(f"{path}: {problem.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise ConfigurationError(f"{path}:{number}: expected KEY=VALUE, got {line!r}")
        values[key.strip()] = value.strip()
    return values
