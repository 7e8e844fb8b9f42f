"""Which deployments a changed configuration restarts: those that are made of something else than before."""

import hashlib
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
HANDS_OVER = "get_deploy_args"  # what Serve's task calls for each deployment of the application that it builds


def give_each_deployment_its_own() -> None:
    """For Serve's task that builds the application, from within which this must be called.

    Serve has one version for all deployments, of the application's whole `args`, so that a change of one key restarts
    all of them, and no public way to give them others. The task is pickled with its globals, so they are no module's.
    """
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        given = frame.f_globals.get(HANDS_OVER)
        if given and not hasattr(given, "__wrapped__"):
            frame.f_globals[HANDS_OVER] = with_own_version(given)


def with_own_version(get_deploy_args: Any) -> Any:
    def called(*, replica_config: Any, deployment_config: Any, version: str | None = None, **options: Any) -> Any:
        own = version_of(replica_config.init_args, replica_config.init_kwargs)
        mark_as_new(deployment_config)
        options |= {"replica_config": replica_config, "deployment_config": deployment_config}
        return get_deploy_args(version=own, **options)

    called.__wrapped__ = get_deploy_args  # type: ignore[attr-defined]
    return called


def mark_as_new(deployment_config: Any) -> None:
    """So that a deployment that a change doesn't concern goes on to be scaled.

    When Serve has built an application it forgets how all of its deployments scale, and learns it again only from those
    whose options differ. These names are an option of which no replica is told.
    """
    deployment_config.user_configured_option_names |= {f"build {uuid.uuid4().hex}"}


def version_of(*arguments: Any) -> str:
    """Of what a deployment is bound with, and of the program; a handle counts by the name of its deployment."""
    return hashlib.sha256(f"{program()} {arguments!r}".encode()).hexdigest()


@cache
def program() -> str:
    contents = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        contents.update(path.read_bytes())
    return contents.hexdigest()
