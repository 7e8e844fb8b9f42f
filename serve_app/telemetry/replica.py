"""What the process of every replica does when it begins, and once it is ready."""

import gc
from functools import cache

from serve_app.settings.languages import Priority
from serve_app.telemetry.crashes import record_crashes
from serve_app.telemetry.listeners import listen_where_ray_does
from serve_app.telemetry.logging import hide_request_contents
from serve_app.telemetry.priority import give_way


@cache  # a router that hosts a deployment begins twice
def begin_replica(engine: Priority | None = None) -> None:
    """`engine` is the priority of the engine that this process holds; None: it has none, and comes before those."""
    if engine:
        give_way(engine)
    hide_request_contents()
    record_crashes()
    listen_where_ray_does()


def keep_what_is_loaded() -> None:
    """Once a replica is ready: its modules and models stay, so the collector needn't look through them any more."""
    gc.collect()
    gc.freeze()
