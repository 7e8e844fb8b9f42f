"""A change of what is loaded, as the router sends it to every replica and the cluster remembers it."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FILE_PREFIX = "file:"  # of load parameters that bring a file of the model


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One load or unload by an administrator; by its id a replica knows whether it has done it."""

    model: str
    action: Literal["load", "unload"]
    parameters: Mapping[str, str | bytes] = field(default_factory=dict)
    dependents: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: float = field(default_factory=time.time)
