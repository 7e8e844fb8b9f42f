"""Serve's status of the applications, read as progress of the start."""

import pytest

from serve_app.tools.launch.status import Progress, parse_progress

RAISED = """ray::ServeReplica:serve_app:vision.initialize_and_get_metadata() (pid=1)
RuntimeError: Traceback (most recent call last):
  File "engine.py", line 134
serve_app.errors.ModelLoadError: model 'yolo' can't be loaded: no such file
"""
REASON = "model 'yolo' can't be loaded: no such file"
UP = {"vision": "HEALTHY", "router": "HEALTHY"}
LOST = {"llm": ("DEPLOY_FAILED", RAISED)}


def application(state, deployments, message=""):
    described = {}
    for name, found in deployments.items():
        status, text = (found, "") if isinstance(found, str) else found
        described[name] = {"status": status, "message": text}
    return {"status": state, "message": message, "deployments": described}


def parse(*applications, optional=("llm",)):
    return parse_progress({"applications": dict(enumerate(applications))}, optional)


def test_without_a_status_nothing_is_known():
    assert parse_progress({}) == parse_progress({"applications": {}}) == Progress()


@pytest.mark.parametrize("optional", [(), ("llm",)], ids=["required", "optional"])
def test_the_service_is_up_when_every_required_deployment_is(optional):
    for state, deployments, up in (
        ("RUNNING", UP, True),
        ("DEPLOYING", UP | {"vision": "UPDATING"}, False),
        ("DEPLOYING", {}, False),
        ("RUNNING", UP | {"router": "UPSCALING"}, True),
        ("RUNNING", UP | {"router": "DOWNSCALING"}, True),
        ("DEPLOYING", UP | {"router": "UPSCALING"}, False),
        ("DEPLOYING", UP | {"llm": "UPDATING"}, bool(optional)),
        ("DEPLOYING", UP | {"llm": "UPSCALING"}, bool(optional)),
        ("RUNNING", {"llm": "HEALTHY"}, not optional),
    ):
        progress = parse(application(state, deployments), optional=optional)
        assert progress.up == up, (state, deployments)
        assert progress.deployments == tuple(deployments.items())
    for state in ("NOT_STARTED", "DEPLOYING"):
        assert not parse(application("RUNNING", UP), application(state, {}), optional=optional).up


def test_a_start_fails_by_errors_that_a_retry_can_not_mend():
    refused = "Traceback\nserve_app.errors.ConfigurationError: invalid configuration: triton: Field required\n"
    for state, deployments, message, failure in (
        ("DEPLOYING", {"vision": ("UPDATING", RAISED)}, "", f"vision: {REASON}"),
        ("DEPLOYING", {"vision": ("UPDATING", "A replica failed to start: OSError")}, "", None),
        ("DEPLOY_FAILED", {}, refused, "invalid configuration: triton: Field required"),
        ("DEPLOY_FAILED", {}, "Traceback\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("DEPLOY_FAILED", {}, "", "the application can't be deployed"),
        ("DEPLOY_FAILED", UP | {"vision": "DEPLOY_FAILED"}, "no room", "no room"),
        ("UNHEALTHY", UP | {"vision": "UNHEALTHY"}, "ill", "ill"),
    ):
        assert parse(application(state, deployments, message)).failure == failure, (deployments, message)


def test_an_optional_deployment_fails_alone():
    for state, deployments, failed in (
        ("DEPLOY_FAILED", UP | LOST, {"llm": REASON}),
        ("DEPLOY_FAILED", UP | {"llm": ("DEPLOY_FAILED", "Traceback\nOSError: x\n\n")}, {"llm": "OSError: x"}),
        ("DEPLOYING", UP | {"llm": ("UPDATING", RAISED)}, {}),  # Serve tries again
        ("UNHEALTHY", UP | {"llm": ("UNHEALTHY", RAISED)}, {}),
    ):
        progress = parse(application(state, deployments, "Failed to update the deployments ['llm']."))
        assert (progress.up, progress.failure, progress.failed_optional) == (True, None, failed)


def test_required_deployments_fail_beside_an_optional_one():
    other = RAISED.replace("yolo", "resnet")
    for deployments, failure in (
        ({"vision": ("UPDATING", other)} | LOST, "vision: model 'resnet' can't be loaded: no such file"),
        (LOST | {"vision": ("UPDATING", other)}, "vision: model 'resnet' can't be loaded: no such file"),
        (LOST | {"vision": ("DEPLOY_FAILED", "Traceback\nOSError: no room\n")}, "both"),
    ):
        assert parse(application("DEPLOY_FAILED", deployments, "both")).failure == failure
    second = application("DEPLOY_FAILED", {}, "KeyError: 'x'")
    assert parse(application("DEPLOY_FAILED", UP | LOST), second).failure == "KeyError: 'x'"
    required = parse(application("DEPLOYING", {"router": "HEALTHY", "llm": ("UPDATING", RAISED)}), optional=())
    assert required.failure == f"llm: {REASON}"
