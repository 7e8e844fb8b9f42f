"""The comparisons P1 to P9: title, goals, sides, and the configuration that the service is started with."""

from collections.abc import Callable
from dataclasses import dataclass, fields

from serve_app.tools.bench.baselines.service import (
    Change,
    serve_detection,
    serve_identity,
    serve_identity_beside_bare_serve,
    serve_language_models,
)
from serve_app.tools.bench.ratio import sides
from serve_app.tools.bench.ratio.autoscaling import LOOK_BACK_S, load_step, serve_paced_model
from serve_app.tools.bench.ratio.rounds import Goal, Side
from serve_app.tools.bench.ratio.service_only import Footprint, growth, startup
from serve_app.tools.bench.ratio.sides import TOKENS, Setup


@dataclass(frozen=True, slots=True)
class Comparison:
    """With `serves` None the comparison starts the service itself."""

    title: str
    goals: tuple[Goal, ...]
    sides: Callable[[Setup], list[Side]]
    serves: Change | None = serve_detection
    rounds: int | None = None  # if fixed


COMPARISONS = {
    "P1": Comparison(
        "D3 over HTTP, pictures in, JSON out ÷ the bare loop",
        (Goal("images/s", 0.95),),
        sides.d3_and_bare_loop,
    ),
    "P2": Comparison(
        "the best track ÷ track A, the same objects found",
        (Goal("images/s", 4.0),),
        sides.best_track_and_track_a,
    ),
    "P3": Comparison(
        "track C ÷ a FastAPI gateway, gRPC and a tritonserver, same engine",
        (Goal("images/s", 1.5), Goal("p99 ms", 1.0, is_maximum=True)),
        sides.track_c_and_gateway,
    ),
    "P4": Comparison(
        "identity model, 60 KB ÷ tritonserver's own HTTP front end",
        (Goal("requests/s", 0.5),),
        sides.identity_and_tritonserver,
        serves=serve_identity,
    ),
    "P5": Comparison(
        f"streams of {TOKENS} tokens ÷ vllm serve with the same arguments",
        (Goal("tokens/s", 0.97), Goal("first token ms", 1.05, is_maximum=True)),
        sides.language_model_and_vllm,
        serves=serve_language_models,
    ),
    "P6": Comparison(
        "from serve run to the first detection, and to the first token",
        (Goal("first detection s", 20.0, is_maximum=True), Goal("first token s", 60.0, is_maximum=True)),
        startup,
        serves=None,
    ),
    "P7": Comparison(
        "what the processes hold after many requests ÷ after a tenth of them",
        tuple(Goal(one.name, 1.02, is_maximum=True) for one in fields(Footprint)),
        growth,
        rounds=1,
    ),
    "P8": Comparison(
        "a load step to three times the capacity of a replica, and back",
        (
            Goal("failed requests", 0.0, is_maximum=True),
            Goal("asked for replicas after s", LOOK_BACK_S, is_maximum=True),
            Goal("replicas at the end", 1.0, is_maximum=True),
        ),
        load_step,
        serves=serve_paced_model,
        rounds=1,
    ),
    "P9": Comparison(
        "identity model, 60 KB ÷ Ray Serve alone, which sends the 60 KB back",
        (Goal("requests/s", 0.5),),
        sides.identity_and_bare_serve,
        serves=serve_identity_beside_bare_serve,
    ),
}
