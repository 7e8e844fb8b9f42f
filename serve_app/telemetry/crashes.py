"""Whether a replica crashed of its own: a fatal signal such as SIGSEGV writes the stacks of its threads to a file."""

import asyncio
import faulthandler
from pathlib import Path
from typing import IO

import ray
from ray._private.state import actors
from ray.serve._private.logging_utils import get_serve_logs_dir
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LOOKUP_TIMEOUT_S = 5.0
_open: list[IO[str]] = []  # faulthandler writes to a file that has to stay open


def record_crashes() -> None:
    """Call this at the start of every replica. Being killed from outside (SIGKILL, SIGTERM) writes nothing."""
    if ray.is_initialized() and (actor_id := ray.get_runtime_context().get_actor_id()):
        _open.append(_crash_log(actor_id).open("w"))
        faulthandler.enable(_open[-1])


async def crashed(actor_id: str | None) -> bool:
    """Whether this actor is dead by a crash of its own; False where its node can't be asked."""
    if actor_id is None:
        return False
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT_S):
            node = (await asyncio.to_thread(actors, actor_id)).get("Address", {}).get("NodeID", "")
            if node == ray.get_runtime_context().get_node_id():
                return _has_crashed(actor_id)
            where = NodeAffinitySchedulingStrategy(node, soft=False)
            return bool(await ray.remote(_has_crashed).options(num_cpus=0, scheduling_strategy=where).remote(actor_id))
    except Exception:  # the node is gone, or Ray can't say: nothing speaks for a crash
        return False


def _has_crashed(actor_id: str) -> bool:
    path = _crash_log(actor_id)
    return path.is_file() and path.stat().st_size > 0


def _crash_log(actor_id: str) -> Path:
    return Path(get_serve_logs_dir()) / f"crash_{actor_id}.log"
