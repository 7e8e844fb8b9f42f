"""The comparisons by their names: what each is about, its goals, and what the service is started with for it."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_app.tools.bench.baselines import service as ours
from serve_app.tools.bench.ratio import alone
from serve_app.tools.bench.ratio import sides as contenders
from serve_app.tools.bench.ratio.autoscaling import DEPLOYMENT, LOOK_BACK_S
from serve_app.tools.bench.ratio.measurements import TOKENS
from serve_app.tools.bench.ratio.rounds import Contender, Goal
from serve_app.tools.bench.ratio.setup import Stage
from serve_app.tools.bench.ratio.soak import Footprint


@dataclass(frozen=True, slots=True)
class Comparison:
    """`serves` is how the service's configuration differs for it; with None it starts the service itself."""

    title: str
    goals: tuple[Goal, ...]
    contenders: Callable[[Stage], list[Contender]]
    serves: ours.Change | None = ours.pictures_only
    rounds: int | None = None  # where more of them say no more


def paced(config: ours.Config) -> None:
    """A deployment that scales, and nothing that needs the processor beside it."""
    ours.without(config, "baseline", "playground")
    (application,) = config["applications"]
    application["args"]["llms"] = []
    ours.add_model(config, DEPLOYMENT)


COMPARISONS = {
    "P1": Comparison(
        "D3 over HTTP, pictures in, JSON out ÷ the bare loop",
        (Goal("images/s", 0.9),),
        contenders.d3_and_bare_loop,
    ),
    "P2": Comparison(
        "the best track ÷ track A, equal detections",
        (Goal("images/s", 4.0),),
        contenders.best_track_and_baseline,
    ),
    "P3": Comparison(
        "track C ÷ a FastAPI gateway, gRPC and a tritonserver of its own, same engine",
        (Goal("images/s", 1.5), Goal("p99 ms", 1.0, is_most=True)),
        contenders.engine_and_gateway,
    ),
    "P4": Comparison(
        "identity model, 60 KB ÷ tritonserver's own HTTP front end",
        (Goal("requests/s", 0.3),),
        contenders.front_ends,
    ),
    "P5": Comparison(
        f"streams of {TOKENS} tokens ÷ vllm serve with the same arguments",
        (Goal("tokens/s", 0.97), Goal("first token ms", 1.05, is_most=True)),
        contenders.language_models,
        serves=ours.languages_only,
    ),
    "P6": Comparison(
        "from serve run to the first detection, and to the first token",
        (Goal("first detection s", 20.0, is_most=True), Goal("first token s", 60.0, is_most=True)),
        alone.starts,
        serves=None,
    ),
    "P7": Comparison(
        "what the processes hold after many requests ÷ after a tenth of them",
        tuple(Goal(kind, 1.02, is_most=True) for kind in Footprint.__slots__),
        alone.soak,
        rounds=1,
    ),
    "P8": Comparison(
        "a load step to three times a replica's capacity, and back",
        (
            Goal("failed requests", 0.0, is_most=True),
            Goal("asked for replicas after s", LOOK_BACK_S, is_most=True),
            Goal("replicas at the end", 1.0, is_most=True),
        ),
        alone.step,
        serves=paced,
        rounds=1,
    ),
}
