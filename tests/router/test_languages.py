"""Language models among other deployments: found by name, absent or asleep without harm to the rest, never woken.

Replicas are faked: the whole router over mappings from methods to functions.
"""

import httpx
import pytest
from ray.exceptions import ActorDiedError

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router.router import Router
from serve_app.settings import LanguageModelSettings, Settings, TritonSettings
from serve_app.types.tensors import InferAnswer


def replica(model, **methods):
    """Of a deployment that has this one model."""

    def statistics(name, version):
        if version not in (-1, 1):
            raise InvalidRequestError(f"requested model version {version} of '{name}' is not available")
        return [{"name": model, "version": "1", "inference_count": 2}]

    return {
        "index": lambda: (f"{model}-1", [{"name": model, "version": "1", "state": "READY", "reason": ""}]),
        "infer": lambda asked: InferAnswer(asked.model, f"by {model}"),
        "ready": lambda name, version: version in (-1, 1),
        "metadata": lambda name, version: {"name": name, "by": model},
        "config": lambda name, version: {"name": name, "by": model},
        "statistics": statistics,
        "change": lambda change: (f"{model}-1", None),
        "describe": lambda: {"models": [model]},
        "start_warming": lambda: None,
        "warming": lambda: {model: {"state": "ready"}},
    } | methods


def dead(*_):
    raise ActorDiedError()


@pytest.fixture
def serve(deploy):
    """A client of a router over pictures and two language models, of which one may sleep, and their handles."""
    asleep = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 1}}
    models = (LanguageModelSettings(name="talker"), LanguageModelSettings(name="sleeper", deployment=asleep))
    with_pictures = Settings(triton=(TritonSettings(name="vision", control_mode="explicit"),), llms=models)
    without = Settings(triton=(), baseline=None, llms=models)

    def over(only_languages=False, **given):
        up = {"vision": [replica("yolo")], "talker": [replica("talker")], "sleeper": [], "baseline": [replica("torch")]}
        if only_languages:
            up = {name: up[name] for name in ("talker", "sleeper")}
        handles = {name: deploy(name, *replicas)[1] for name, replicas in (up | given).items()}
        app = Router(without if only_languages else with_pictures, {}, handles).__serve_build_asgi_app__()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://router"), handles

    return over


async def get(client, path, status=200):
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def post(client, path, status=200, **document):
    answer = await client.post(path, json=document)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


@pytest.mark.parametrize("what", ["", "/config"])
async def test_a_name_leads_to_its_deployment_without_a_search(serve, what):
    client, handles = serve(sleeper=[replica("sleeper")])
    for name in ("talker", "sleeper"):
        assert await get(client, f"/v2/models/{name}{what}") == {"name": name, "by": name}
    assert {method for handle in handles.values() for method, _ in handle.broadcasts} <= {"index"}
    assert await get(client, f"/v2/models/yolo{what}") == {"name": "yolo", "by": "yolo"}


async def test_a_model_that_sleeps_is_no_illness(serve):
    client, _ = serve()
    await get(client, "/v2/health/ready")
    health = await get(client, "/health")
    assert health["ready"] is True
    assert set(health["deployments"].values()) == {True}


GONE = pytest.mark.parametrize("gone", [(), [replica("talker", index=dead, describe=dead)]])


@GONE
async def test_a_model_that_should_be_there_and_is_not_is_named_and_takes_no_pictures_out_of_service(serve, gone):
    client, _ = serve(talker=gone)
    await get(client, "/v2/health/ready")
    health = await get(client, "/health")
    assert [name for name, ready in health["deployments"].items() if not ready] == ["talker"]


@GONE
async def test_where_nothing_else_is_served_readiness_is_that_of_the_models(serve, gone):
    client, _ = serve(only_languages=True, talker=gone)
    assert await get(client, "/v2/health/ready", 503) == {"error": "not every deployment is ready; try again later"}
    assert (await get(client, "/health", 503))["deployments"] == {"talker": False, "sleeper": True}
    client, _ = serve(only_languages=True)
    await get(client, "/v2/health/ready")


async def test_the_index_says_why_a_model_is_not_ready(serve):
    client, _ = serve(talker=())
    rows = {row["name"]: (row["state"], row["reason"]) for row in await post(client, "/v2/repository/index")}
    assert rows == {
        "yolo": ("READY", ""),
        "talker": ("UNAVAILABLE", "no running replica"),
        "sleeper": ("UNAVAILABLE", "asleep: a request wakes it"),
    }
    assert [row["name"] for row in await post(client, "/v2/repository/index", ready=True)] == ["yolo"]
    assert await get(client, "/v2/models") == {"models": ["yolo"]}


async def test_of_pictures_the_index_is_not_silent(serve):
    client, _ = serve(vision=())
    assert await post(client, "/v2/repository/index", 503) == {"error": "vision has no running replica"}
    assert await get(client, "/v2/models/stats", 503) == {"error": "vision has no running replica"}


@pytest.mark.parametrize("name", ["talker", "sleeper"])
async def test_a_model_is_ready_as_soon_as_one_replica_is(serve, name):
    client, _ = serve(**{name: [replica(name, ready=dead), replica(name, ready=lambda *_: False), replica(name)]})
    await get(client, f"/v2/models/{name}/ready")
    await get(client, f"/v2/models/{name}/versions/1/ready")
    for replicas in ((), [replica(name, ready=lambda *_: False)], [replica(name, ready=dead)]):
        client, _ = serve(**{name: replicas})
        assert await get(client, f"/v2/models/{name}/ready", 400) == {"error": "Model version not ready"}


async def test_a_version_that_is_not_there_is_not_ready(serve):
    client, _ = serve()
    assert await get(client, "/v2/models/talker/versions/2/ready", 400) == {"error": "Model version not ready"}


async def test_statistics_leave_out_who_sleeps_unless_it_is_asked_for(serve):
    client, _ = serve(talker=[replica("talker"), replica("talker"), replica("talker", statistics=dead)])
    rows = (await get(client, "/v2/models/stats"))["model_stats"]
    assert [(row["name"], row["inference_count"]) for row in rows] == [("yolo", 2), ("talker", 4)]
    assert await get(client, "/v2/models/sleeper/stats", 503) == {"error": "sleeper has no running replica"}
    refusal = await get(client, "/v2/models/talker/versions/2/stats", 400)
    assert refusal == {"error": "requested model version 2 of 'talker' is not available"}


async def test_who_looks_wakes_nobody(serve):
    client, handles = serve()
    for path in ("/v2/health/ready", "/health", "/v2/models", "/v2/models/stats", "/warmup_status", "/v1/models"):
        await get(client, path)
    await get(client, "/v2/models/sleeper/ready", 400)
    await get(client, "/v2/models/sleeper/stats", 503)
    await get(client, "/v1/models/sleeper")
    await post(client, "/v2/repository/index")
    await post(client, "/warmup", 202)
    assert handles["sleeper"].calls == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/stats", 400),
        ("POST", "/v2/repository/models/new/load", 200),
        ("POST", "/v2/repository/models/none/unload", 200),
    ],
)
@pytest.mark.parametrize("absent", ["sleeper", "talker"])
async def test_an_absent_language_model_has_no_model_but_its_own(serve, method, path, status, absent):
    client, _ = serve(**{"talker": [replica("talker")], "sleeper": [replica("sleeper")], absent: ()})
    answer = await client.request(method, path)
    assert answer.status_code == status, answer.text


async def test_a_model_that_nobody_has_is_not_found_among_languages(serve):
    client, _ = serve(sleeper=[replica("sleeper")])
    message = "Request for unknown model: 'none' is not found; available: sleeper, talker, yolo"
    assert await get(client, "/v2/models/none", 404) == {"error": message}
    await post(client, "/v2/repository/models/new/load")


async def test_a_language_model_is_not_loaded_by_request(serve):
    refused = UnsupportedError("'talker' is a language model; the configuration says which are served")
    client, handles = serve(talker=[replica("talker", change=lambda change: ("talker-1", refused))])
    for action in ("load", "unload"):
        assert await post(client, f"/v2/repository/models/talker/{action}", 501) == {"error": refused.message}
    assert all(method == "index" for method, _ in handles["vision"].broadcasts)


@pytest.mark.parametrize("name", ["talker", "sleeper"])
async def test_a_model_too_busy_to_answer_is_not_said_to_be_absent_or_asleep(serve, name):
    client, handles = serve(sleeper=[replica("sleeper")])
    handles[name].problem = TimeoutError()
    (row,) = [row for row in await post(client, "/v2/repository/index") if row["name"] == name]
    assert row["reason"] not in ("no running replica", "asleep: a request wakes it")


async def test_a_warmup_begins_wherever_it_can(serve):
    begun = []
    note = {"start_warming": lambda: begun.append(1)}
    client, handles = serve(vision=[replica("yolo", **note)], talker=[replica("talker", start_warming=dead)])
    handles["baseline"].replicas[0] |= note
    answer = await post(client, "/warmup", 202)
    assert len(begun) == 2
    assert answer == await get(client, "/warmup_status")
    assert answer["deployments"] == {
        "vision": {"yolo": {"state": "ready", "replicas_ready": 1, "replicas": 1}},
        "talker": {"talker": {"state": "ready", "replicas_ready": 1, "replicas": 1}},
        "sleeper": {},
        "baseline": {"torch": {"state": "ready", "replicas_ready": 1, "replicas": 1}},
    }


async def test_a_warmup_of_pictures_without_a_replica_says_so(serve):
    client, _ = serve(vision=())
    for answer in (await post(client, "/warmup", 503), await get(client, "/warmup_status", 503)):
        assert answer == {"error": "vision has no running replica"}


async def test_a_language_model_that_is_too_busy_to_answer_keeps_no_warmup_back(serve):
    begun = []
    client, handles = serve()
    handles["talker"].problem = TimeoutError()
    handles["baseline"].replicas[0]["start_warming"] = lambda: begun.append("baseline")
    await client.post("/warmup")
    assert begun == ["baseline"]
