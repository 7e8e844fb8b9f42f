"""The tables of docs/gpu.md agree with configs/serve.gpu.yaml and the models for GPUs."""

import re

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.app import route_tracks
from serve_app.settings import PROJECT_ROOT, RouterSettings, read_config, settings_of

DOCUMENT = (PROJECT_ROOT / "docs" / "gpu.md").read_text()
MODELS = PROJECT_ROOT / "model_repository" / "gpu"
CONFIG = read_config(PROJECT_ROOT / "configs" / "serve.gpu.yaml")
DEPLOYMENTS = {one["name"]: one for one in CONFIG["applications"][0]["deployments"]}
ROUTES = {track.model: name for track, name in route_tracks(settings_of(CONFIG)).items() if name != "baseline"}


def rows(first_column):
    found = re.findall(rf"^\| ({first_column}.*) \|$", DOCUMENT, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in found]


def number(text):
    return int(text.replace(",", ""))


def engine_of(model):
    """The config of the model, or of the engine behind a pipeline."""
    config = text_format.Parse((MODELS / model / "config.pbtxt").read_text(), ModelConfig())
    steps = config.ensemble_scheduling.step
    return engine_of(steps[-1].model_name) if steps else config


def test_every_model_of_a_track_has_a_row_with_its_batching_queues_and_replicas():
    assert {
        re.search("`(.*)`", row[0])[1]: row[0].split(",")[0] for row in rows("(?:vision|streaming|bulk), ")
    } == ROUTES
    for row in rows("(?:vision|streaming|bulk), "):
        check_row(row)


def check_row(row):
    deployment, model = DEPLOYMENTS[row[0].split(",")[0]], engine_of(re.search("`(.*)`", row[0])[1])
    batch, instances = map(int, row[1].split(" x "))
    queue = model.dynamic_batching.default_queue_policy.max_queue_size
    assert (batch, instances) == (model.max_batch_size, model.instance_group[0].count)
    assert (number(row[2]), number(row[3])) == (queue, batch * instances + queue)
    assert number(row[4]) == deployment["max_ongoing_requests"] >= 2 * batch * instances
    assert number(row[5]) == deployment["max_queued_requests"]
    scaling = deployment["autoscaling_config"]
    assert row[6] == f"{scaling['min_replicas']}–{scaling['max_replicas']}"


def test_concurrent_requests_are_calculated_from_the_number_of_routers():
    router = DEPLOYMENTS["router"]
    scaling, table = router["autoscaling_config"], rows(r"\d+ ?(?:\(\w+\))?")
    assert [row[0] for row in table] == [f"{scaling['min_replicas']} (least)", "4", f"{scaling['max_replicas']} (most)"]
    for row in table:
        routers, at_once = int(row[0].split()[0]), number(row[1])
        assert at_once == routers * RouterSettings().at_once.detection
        in_triton, waiting, refused = map(number, row[2].split(" / "))
        assert in_triton == DEPLOYMENTS["bulk"]["max_ongoing_requests"]
        room = routers * DEPLOYMENTS["bulk"]["max_queued_requests"]
        assert (waiting, refused) == (min(at_once - in_triton, room), max(at_once - in_triton - room, 0))
    assert number(table[-1][1]) == 16_384


def test_the_shares_of_one_gpu_add_up_to_one():
    shares = {name: one["ray_actor_options"].get("num_gpus", 0) for name, one in DEPLOYMENTS.items()}
    (model,) = settings_of(CONFIG).llms
    assert sum(shares.values()) + model.num_gpus == pytest.approx(1)
    (sentence,) = re.findall(r"holds, by share: (.*?);", DOCUMENT.replace("\n", " "))
    documented = dict(re.findall(r"(\w+) ([\d.]+)", sentence))
    assert documented.pop("model") == f"{model.num_gpus:g}"
    assert {name: float(share) for name, share in documented.items()} == {
        name: one for name, one in shares.items() if one
    }
