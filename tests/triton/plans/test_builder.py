"""What is asked of TensorRT 10 and 11, told by a fake that has of each what NVIDIA's pages say it has."""

import hashlib
import json

import pytest

from serve_app.detection.onnx_nms import add_nms
from serve_app.errors import ConfigurationError, EngineError
from serve_app.triton.plans.builder import Profile, build_plan, choose_graph, has_efficient_nms
from serve_app.types import Thresholds

PROFILE = Profile(1, 4, 8)
FLAVOURS = ["10", "11", "11 without the flag"]


def keep(model, efficient):
    return model


def build(fake, model, timing=b"", report=lambda line: None, profile=PROFILE, choose=keep, **options):
    return build_plan(
        fake.module(), model.SerializeToString(), profile, timing, report, choose=choose, **options
    )  # fmt: skip


def about(plan):
    return json.loads(plan.removeprefix(b"plan of "))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_fake_a_plan_is_the_bytes_that_the_builder_gave_and_nothing_else(fake, model, flavour):
    plan, timing = build(fake.behave(flavour), model)
    assert plan.startswith(b"plan of ")
    assert about(plan)["graph"] == hashlib.sha256(model.SerializeToString()).hexdigest()
    assert type(plan) is type(timing) is bytes
    assert fake.calls("parse") == [{"call": "parse", "nodes": ["Identity"]}]


@pytest.mark.parametrize(("flavour", "flags"), [("10", 1 << 1), ("11", 1 << 1), ("11 without the flag", 0)])
def test_fake_networks_are_strongly_typed_in_10_and_11_and_no_flag_lowers_the_precision(fake, model, flavour, flags):
    build(fake.behave(flavour), model)
    assert fake.calls("create_network") == [{"call": "create_network", "flags": flags}]
    assert fake.calls("set_flag") == []


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_fake_the_one_profile_has_three_batches_of_the_graphs_own_size(fake, model, flavour):
    build(fake.behave(flavour), model)
    (call,) = fake.calls("build_serialized_network")
    assert call["profiles"] == [{"images": [[1, 3, 32, 32], [4, 3, 32, 32], [8, 3, 32, 32]]}]


def test_fake_inputs_of_fixed_size_need_no_profile(fake, graph_of):
    build(fake, graph_of(("images", ["batch", 32, 32, 3]), ("score_threshold", [1])))
    (call,) = fake.calls("build_serialized_network")
    assert list(call["profiles"][0]) == ["images"]


@pytest.mark.parametrize(
    ("inputs", "listed"),
    [
        ([("images", ["batch", 3, "height", 32])], "images [-1, 3, -1, 32]"),
        ([("images", [4, 3, 32, 32])], "images [4, 3, 32, 32]"),
        ([("images", ["batch", 3, 32, 32]), ("sizes", ["batch", 2])], "images [-1, 3, 32, 32], sizes [-1, 2]"),
        ([("pixels", ["batch", 3, 32, 32])], "pixels [-1, 3, 32, 32]"),
    ],
)
def test_fake_a_graph_with_another_free_dimension_than_the_batch_is_refused(fake, graph_of, inputs, listed):
    with pytest.raises(EngineError) as error:
        build(fake, graph_of(*inputs))
    assert str(error.value) == (
        f"only the batch of 'images' may be free (-1), but the graph takes {listed}: export it so"
    )


def test_fake_a_profile_that_is_refused_is_an_error(fake, model):
    with pytest.raises(EngineError, match="TensorRT refuses batches of 1 to 8"):
        build(fake.behave(refused_profile=True), model)


@pytest.mark.parametrize("batches", [(0, 1, 1), (2, 1, 4), (1, 5, 4), (-1, -1, -1)])
def test_batch_sizes_must_grow_from_one(batches):
    with pytest.raises(ConfigurationError, match=f"batch sizes min {batches[0]}, opt {batches[1]}, max {batches[2]}"):
        Profile(*batches)


@pytest.mark.parametrize(("options", "mib"), [({}, 2048), ({"workspace_mib": 512}, 512)])
def test_fake_the_workspace_has_a_limit(fake, model, options, mib):
    build(fake, model, **options)
    (call,) = fake.calls("set_memory_pool_limit")
    assert (call["pool"], call["bytes"]) == ("WORKSPACE", mib * 1024 * 1024)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_fake_fp32_is_not_made_less_of(fake, model, flavour):
    build(fake, model)
    assert [call["flag"] for call in fake.calls("clear_flag")] == ["TF32"]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("plugin", [True, False])
def test_fake_the_plugin_is_looked_for_after_it_could_be_registered(fake, model, flavour, plugin):
    chosen = []

    def choose(model, efficient):
        chosen.append(efficient)
        return model

    build(fake.behave(flavour, plugin=plugin), model, choose=choose)
    assert chosen == [plugin]
    names = [call["call"] for call in fake.calls()]
    assert names.index("init_libnvinfer_plugins") < names.index("get_creator") < names.index("parse")
    assert fake.calls("get_creator")[0]["asked"] == ["EfficientNMS_TRT", "1", ""]


def test_fake_a_tensorrt_without_its_plugin_library_has_no_plugin(fake):
    trt = fake.behave("11", plugin=True, no_plugin_library=True).module()
    assert not has_efficient_nms(trt, trt.ILogger())


def test_fake_the_graph_that_was_chosen_is_the_one_that_is_parsed(fake, model, graph_of):
    build(fake.behave(plugin=True), model, choose=lambda _, efficient: graph_of(("images", ["n", 1]), kind="Relu"))
    assert fake.calls("parse")[0]["nodes"] == ["Relu"]


def test_only_a_graph_with_nms_gets_the_plugin(model):
    assert choose_graph(model, False) is model
    assert choose_graph(model, True) == model


def test_nms_becomes_the_plugin_where_there_is_one(graph_of):
    model = add_nms(graph_of(("images", ["batch", 10, 50])), Thresholds(0.25, 0.7))
    with_plugin = {node.op_type for node in choose_graph(model, True).graph.node}
    assert "EfficientNMS_TRT" in with_plugin
    assert "NonMaxSuppression" not in with_plugin
    assert "NonMaxSuppression" in {node.op_type for node in choose_graph(model, False).graph.node}


def test_fake_timings_of_one_build_are_given_to_the_next(fake, model):
    _, timing = build(fake, model)
    assert timing == b"+timings"
    _, timing = build(fake, model, timing)
    assert timing == b"+timings+timings"
    assert [call["timing"] for call in fake.calls("build_serialized_network")] == ["", "+timings"]


@pytest.mark.parametrize("refusal", ["null", "raises", "mismatch"])
def test_fake_timings_that_are_refused_are_told_and_begun_anew(fake, model, refusal):
    lines = []
    plan, timing = build(fake.behave(timing_cache=refusal), model, b"of another GPU", lines.append)
    assert plan
    assert timing == b"+timings"
    assert lines == ["TensorRT refuses the timing cache: begun anew"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_fake_progress_is_told_as_it_comes(fake, model, flavour):
    lines = []
    phases = [["Building engine", None, 3], ["Timing graph nodes", "Building engine", 2]]
    build(fake.behave(flavour, phases=phases), model, report=lines.append)
    assert lines == ["Building engine, 1 of 3", "Building engine, done in 0 s"]


def test_fake_all_that_the_parser_complains_of_is_one_line(fake, model):
    errors = ["In node 3 (importConv): UNSUPPORTED_NODE:\n  no weights", "In node 9 (importFoo): INVALID_NODE: Foo"]
    with pytest.raises(EngineError) as error:
        build(fake.behave(parser_errors=errors), model)
    assert str(error.value) == (
        "TensorRT can't read the graph: In node 3 (importConv): UNSUPPORTED_NODE: no weights; "
        "In node 9 (importFoo): INVALID_NODE: Foo"
    )
    assert fake.calls("build_serialized_network") == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [("fail", "Error Code 10: no kernel for node Conv_7"), ("fail silently", "it gave no reason")],
)
def test_fake_a_build_that_gives_nothing_is_an_error_with_the_last_that_was_logged(fake, model, how, reason):
    with pytest.raises(EngineError) as error:
        build(fake.behave(build=how), model)
    assert str(error.value) == f"TensorRT built nothing: {reason}"


def test_fake_warnings_and_errors_go_to_stderr_in_a_line_each(fake, model, capsys):
    with pytest.raises(EngineError):
        build(fake.behave(build="fail"), model)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "TensorRT: a weight was rounded",
        "TensorRT: Error Code 10: no kernel for node Conv_7",
    ]


def test_fake_a_cuda_that_does_not_start_is_named(fake, model):
    with pytest.raises(EngineError) as error:
        build(fake.behave(no_cuda=True), model)
    assert str(error.value) == (
        "TensorRT can't start: CUDA initialization failure with error: 35 Please check your CUDA installation"
    )


def test_fake_an_older_tensorrt_is_refused(fake, model):
    with pytest.raises(ConfigurationError, match=r"TensorRT 8\.6\.1 is too old: install 10 or newer"):
        build(fake.behave(version="8.6.1"), model)


def test_fake_what_is_no_graph_is_told(fake):
    with pytest.raises(EngineError, match="the file is no ONNX graph"):
        build_plan(fake.module(), b"\x00\x01 something else", PROFILE, b"", lambda line: None)


def test_the_fake_refuses_what_the_bindings_refuse(fake):
    trt = fake.behave("11").module()
    assert not hasattr(trt.BuilderFlag, "FP16")
    assert not hasattr(trt.get_plugin_registry(), "get_plugin_creator")

    class Forgetful(trt.ILogger):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="must be called when overriding"):
        trt.Builder(Forgetful())
