"""Which deployments a change of the settings concerns."""

import copy

import pytest
from ray.serve._private import build_app as serve_build
from ray.serve._private.version import DeploymentVersion

from serve_app.app import build
from serve_app.versions import program, version_of, with_own_version

MODEL = {"name": "small", "source": "somewhere", "accelerator": "cpu", "engine": {"dtype": "float32"}}
ARGS = {"llms": [MODEL], "playground": {}, "router": {"hosts": None}}


def versions(args):
    """As Serve's build of the application gives them to its controller."""
    return {name: version for name, (version, _) in given_to_serve(args).items()}


def given_to_serve(args):
    """Version and options of each deployment."""
    given = with_own_version(lambda **options: (options["version"], options["deployment_config"]))
    application = serve_build.build_app(build(copy.deepcopy(args)), name="serve_app", default_runtime_env={})
    return {
        one.name: given(
            name=one.name, replica_config=one._replica_config, deployment_config=copy.deepcopy(one._deployment_config)
        )
        for one in application.deployments
    }


def changed(change):
    args = copy.deepcopy(ARGS)
    change(args)
    before, after = versions(ARGS), versions(args)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        (lambda args: None, set()),
        (lambda args: args.update(detection={"confidence": 0.5}), {"router", "vision", "baseline"}),
        (lambda args: args.update(router={"hosts": None, "max_wait_s": 5}), {"router"}),
        (lambda args: args.update(baseline={"threads": 1}), {"baseline"}),
        (lambda args: args.update(playground={"service_url": "http://elsewhere"}), {"playground"}),
        (lambda args: args["llms"][0]["engine"].update(max_num_seqs=8), {"small"}),
        (lambda args: args["llms"][0]["engine"].update(max_model_len=64), {"small", "router"}),  # /v1/models says it
        (lambda args: args["llms"][0].update(wake_timeout_s=9), {"small", "router"}),
    ],
)
def test_a_change_concerns_the_deployments_that_read_it(change, concerned):
    assert changed(change) == concerned


def test_a_new_deployment_leaves_the_others_but_those_that_send_to_it():
    more = ARGS | {"llms": [MODEL, MODEL | {"name": "second"}]}
    before, after = versions(ARGS), versions(more)
    assert {name for name in after if before.get(name) != after[name]} == {"second", "router"}


def test_options_differ_from_build_to_build_so_that_serve_goes_on_to_scale_but_no_replica_is_changed_for_it():
    """Serve leaves a deployment out, and no longer scales it, where version and options are those of before."""
    before, after = given_to_serve(ARGS), given_to_serve(ARGS)
    for name, (version, options) in before.items():
        again, others = after[name]
        assert version == again
        assert options != others, name
        assert DeploymentVersion(version, options, {}) == DeploymentVersion(again, others, {}), name


def test_a_version_has_the_program_in_it(monkeypatch):
    before = version_of("the same")
    monkeypatch.setattr("serve_app.versions.program", lambda: "another program")
    assert version_of("the same") != before
    assert program() == program()
