"""Language models beside other deployments, in the whole router: found by name, and absent or asleep without harm."""

import httpx
import pytest
from ray.exceptions import ActorDiedError

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router import catalog
from serve_app.router.router import Router
from serve_app.settings import LanguageModelSettings, RouterSettings, Settings, TritonSettings
from serve_app.types.tensors import InferAnswer


def replica(model, **methods):
    """A replica of a deployment that has this one model."""

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
def serve(handle, monkeypatch):
    """A client of a router over detection and two language models, one of which scales to zero, and their handles."""
    monkeypatch.setattr(catalog, "REFRESH_INTERVAL_S", 0.001)
    asleep = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 1}}
    models = (LanguageModelSettings(name="talker"), LanguageModelSettings(name="sleeper", deployment=asleep))
    with_detection = Settings(
        router=RouterSettings(open_model_control=True),
        triton=(TritonSettings(name="vision", control_mode="explicit"),),
        llms=models,
    )
    without = Settings(triton=(), baseline=None, llms=models)

    def over(only_languages=False, **given):
        up = {"vision": [replica("yolo")], "talker": [replica("talker")], "sleeper": [], "baseline": [replica("torch")]}
        if only_languages:
            up = {name: up[name] for name in ("talker", "sleeper")}
        handles = {name: handle(*replicas) for name, replicas in (up | given).items()}
        app = Router(without if only_languages else with_detection, {}, handles).__serve_build_asgi_app__()
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


async def test_a_language_model_is_found_by_its_name_without_a_search(serve):
    client, handles = serve(sleeper=[replica("sleeper")])
    for end in ("", "/config"):
        for name in ("talker", "sleeper", "yolo"):
            assert await get(client, f"/v2/models/{name}{end}") == {"name": name, "by": name}
    assert {method for handle in handles.values() for method, _ in handle.broadcasts} <= {"index"}
    message = "Request for unknown model: 'none' is not found; available: sleeper, talker, yolo"
    assert await get(client, "/v2/models/none", 404) == {"error": message}


GONE = ((), [replica("talker", index=dead, describe=dead)])


async def test_the_service_is_ready_without_language_models_and_health_names_the_absent_one(serve):
    for talker in ([replica("talker")], *GONE):
        client, _ = serve(talker=talker)
        await get(client, "/v2/health/ready")
        health = await get(client, "/health")
        absent = [name for name, ready in health["deployments"].items() if not ready]
        assert (health["ready"], absent) == (True, ["talker"] if talker in GONE else [])


async def test_a_service_of_language_models_only_is_ready_when_they_are(serve):
    client, _ = serve(only_languages=True)
    await get(client, "/v2/health/ready")
    for talker in GONE:
        client, _ = serve(only_languages=True, talker=talker)
        assert await get(client, "/v2/health/ready", 503) == {"error": "not every deployment is ready; try again later"}
        assert (await get(client, "/health", 503))["deployments"] == {"talker": False, "sleeper": True}


async def test_the_index_says_why_a_language_model_is_not_ready(serve):
    client, _ = serve(talker=())
    rows = {row["name"]: (row["state"], row["reason"]) for row in await post(client, "/v2/repository/index")}
    assert rows == {
        "yolo": ("READY", ""),
        "talker": ("UNAVAILABLE", "no running replica"),
        "sleeper": ("UNAVAILABLE", "asleep: a request wakes it"),
    }
    assert [row["name"] for row in await post(client, "/v2/repository/index", ready=True)] == ["yolo"]
    assert await get(client, "/v2/models") == {"models": ["yolo"]}
    for name in ("talker", "sleeper"):
        client, handles = serve(sleeper=[replica("sleeper")])
        handles[name].problem = TimeoutError()  # too busy to answer
        (row,) = [row for row in await post(client, "/v2/repository/index") if row["name"] == name]
        assert row["reason"] == f"not every replica of {name} answered within 5 s"


async def test_detection_without_a_replica_is_an_error(serve):
    client, _ = serve(vision=())
    error = {"error": "vision has no running replica"}
    for path in ("/v2/repository/index", "/warmup"):
        assert await post(client, path, 503) == error
    for path in ("/v2/models/stats", "/warmup_status"):
        assert await get(client, path, 503) == error


async def test_a_language_model_is_ready_as_soon_as_one_replica_is(serve):
    not_ready = {"error": "Model version not ready"}
    for name in ("talker", "sleeper"):
        client, _ = serve(**{name: [replica(name, ready=dead), replica(name, ready=lambda *_: False), replica(name)]})
        await get(client, f"/v2/models/{name}/ready")
        await get(client, f"/v2/models/{name}/versions/1/ready")
        assert await get(client, f"/v2/models/{name}/versions/2/ready", 400) == not_ready
        for replicas in ((), [replica(name, ready=lambda *_: False)], [replica(name, ready=dead)]):
            client, _ = serve(**{name: replicas})
            assert await get(client, f"/v2/models/{name}/ready", 400) == not_ready


async def test_statistics_leave_out_models_without_a_replica_unless_they_are_named(serve):
    client, _ = serve(talker=[replica("talker"), replica("talker"), replica("talker", statistics=dead)])
    rows = (await get(client, "/v2/models/stats"))["model_stats"]
    assert [(row["name"], row["inference_count"]) for row in rows] == [("yolo", 2), ("talker", 4)]
    assert await get(client, "/v2/models/sleeper/stats", 503) == {"error": "sleeper has no running replica"}
    refusal = await get(client, "/v2/models/talker/versions/2/stats", 400)
    assert refusal == {"error": "requested model version 2 of 'talker' is not available"}


async def test_a_model_that_sleeps_is_not_woken_by_questions_about_it(serve):
    client, handles = serve()
    for path in ("/v2/health/ready", "/health", "/v2/models", "/v2/models/stats", "/warmup_status", "/v1/models"):
        await get(client, path)
    await get(client, "/v2/models/sleeper/ready", 400)
    await get(client, "/v2/models/sleeper/stats", 503)
    await get(client, "/v1/models/sleeper")
    await post(client, "/v2/repository/index")
    await post(client, "/warmup", 202)
    assert handles["sleeper"].calls == []


async def test_a_search_for_another_model_does_not_wait_for_an_absent_language_model(serve):
    for absent in ("sleeper", "talker"):
        client, _ = serve(**{"talker": [replica("talker")], "sleeper": [replica("sleeper")], absent: ()})
        await get(client, "/v2/models/none", 404)
        await get(client, "/v2/models/none/stats", 400)
        await post(client, "/v2/repository/models/new/load")
        await post(client, "/v2/repository/models/none/unload")


async def test_a_language_model_is_not_loaded_by_request(serve):
    refused = UnsupportedError("'talker' is a language model; the configuration says which are served")
    client, handles = serve(talker=[replica("talker", change=lambda change: ("talker-1", refused))])
    for action in ("load", "unload"):
        assert await post(client, f"/v2/repository/models/talker/{action}", 501) == {"error": refused.message}
    assert all(method == "index" for method, _ in handles["vision"].broadcasts)


async def test_a_warmup_begins_everywhere_but_where_a_language_model_is_absent_or_busy(serve):
    begun = []
    note = {"start_warming": lambda: begun.append(1)}
    client, handles = serve(vision=[replica("yolo", **note)], talker=[replica("talker", start_warming=dead)])
    handles["baseline"].replicas[0] |= note
    answer = await post(client, "/warmup", 202)
    assert len(begun) == 2
    assert answer == await get(client, "/warmup_status")
    ready = {"state": "ready", "replicas_ready": 1, "replicas": 1}
    assert answer["deployments"] == {
        "vision": {"yolo": ready}, "talker": {"talker": ready}, "sleeper": {}, "baseline": {"torch": ready},
    }  # fmt: skip
    handles["talker"].problem = TimeoutError()
    await client.post("/warmup")
    assert len(begun) == 4
