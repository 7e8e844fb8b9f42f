"""The calls to TensorRT 10 and 11, recorded by a fake TensorRT that has what NVIDIA documents for each version."""

import hashlib
import json

import pytest

from serve_app.detection.onnx_nms import add_nms
from serve_app.errors import ConfigurationError, EngineError
from serve_app.triton.plans.builder import Profile, build_plan, choose_graph, has_efficient_nms
from serve_app.types import Thresholds

PROFILE = Profile(1, 4, 8)
FLAVOURS = {"10": 1 << 1, "11": 1 << 1, "11 without the flag": 0}  # with the flags that networks are created with


def keep(model, efficient):
    return model


def build(fake, model, timing=b"", report=lambda line: None, choose=keep, **options):
    return build_plan(fake.module(), model.SerializeToString(), PROFILE, timing, report, choose=choose, **options)


@pytest.mark.parametrize(("flavour", "flags"), FLAVOURS.items())
def test_a_build_with_a_fake_tensorrt_is_strongly_typed_bounded_and_returns_the_plan_as_it_is(
    fake, model, flavour, flags
):
    lines = []
    phases = [["Building engine", None, 3], ["Timing graph nodes", "Building engine", 2]]
    plan, timing = build(fake.behave(flavour, phases=phases), model, report=lines.append)
    about = json.loads(plan.removeprefix(b"plan of "))
    assert about["graph"] == hashlib.sha256(model.SerializeToString()).hexdigest()
    assert type(plan) is type(timing) is bytes
    assert lines == ["Building engine, 1 of 3", "Building engine, done in 0 s"]
    assert fake.calls("create_network") == [{"call": "create_network", "flags": flags}]
    assert fake.calls("set_flag") == []
    assert [call["flag"] for call in fake.calls("clear_flag")] == ["TF32"]
    (limit,) = fake.calls("set_memory_pool_limit")
    assert (limit["pool"], limit["bytes"]) == ("WORKSPACE", 2048 << 20)
    (call,) = fake.calls("build_serialized_network")
    assert call["profiles"] == [{"images": [[1, 3, 32, 32], [4, 3, 32, 32], [8, 3, 32, 32]]}]


def test_only_the_batch_of_images_may_be_dynamic_with_a_fake_tensorrt(fake, graph_of):
    build(fake, graph_of(("images", ["batch", 32, 32, 3]), ("score_threshold", [1])))
    (call,) = fake.calls("build_serialized_network")
    assert list(call["profiles"][0]) == ["images"]
    for inputs, listed in (
        ([("images", ["batch", 3, "height", 32])], "images [-1, 3, -1, 32]"),
        ([("images", [4, 3, 32, 32])], "images [4, 3, 32, 32]"),
        ([("images", ["batch", 3, 32, 32]), ("sizes", ["batch", 2])], "images [-1, 3, 32, 32], sizes [-1, 2]"),
        ([("pixels", ["batch", 3, 32, 32])], "pixels [-1, 3, 32, 32]"),
    ):
        with pytest.raises(EngineError) as error:
            build(fake, graph_of(*inputs))
        assert str(error.value) == (
            f"only the batch of 'images' may be dynamic (-1), but the graph's inputs are {listed}"
        )


def test_batch_sizes_must_be_positive_and_ascending():
    for least, opt, most in ((0, 1, 1), (2, 1, 4), (1, 5, 4), (-1, -1, -1)):
        with pytest.raises(ConfigurationError) as error:
            Profile(least, opt, most)
        assert str(error.value) == (
            f"batch sizes must be 1 <= min <= opt <= max, got min {least}, opt {opt}, max {most}"
        )


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("plugin", [True, False])
def test_the_nms_plugin_of_a_fake_tensorrt_is_registered_before_it_is_looked_up_and_the_graph_is_chosen_by_it(
    fake, model, graph_of, flavour, plugin
):
    def choose(model, efficient):
        return graph_of(("images", ["n", 1]), kind="Relu") if efficient else model

    build(fake.behave(flavour, plugin=plugin), model, choose=choose)
    names = [call["call"] for call in fake.calls()]
    assert names.index("init_libnvinfer_plugins") < names.index("get_creator") < names.index("parse")
    assert fake.calls("get_creator")[0]["asked"] == ["EfficientNMS_TRT", "1", ""]
    assert fake.calls("parse")[0]["nodes"] == ["Relu" if plugin else "Identity"]


def test_a_fake_tensorrt_without_its_plugin_library_has_no_plugin(fake):
    trt = fake.behave("11", plugin=True, no_plugin_library=True).module()
    assert not has_efficient_nms(trt, trt.ILogger())


def test_nms_becomes_the_plugin_where_it_is_available(model, graph_of):
    assert choose_graph(model, True) == model
    with_nms = add_nms(graph_of(("images", ["batch", 10, 50])), Thresholds(0.25, 0.7))
    for efficient, present, absent in (
        (True, "EfficientNMS_TRT", "NonMaxSuppression"),
        (False, "NonMaxSuppression", "EfficientNMS_TRT"),
    ):
        kinds = {node.op_type for node in choose_graph(with_nms, efficient).graph.node}
        assert present in kinds
        assert absent not in kinds


def test_timings_of_a_build_are_passed_to_the_next_and_dropped_where_a_fake_tensorrt_rejects_them(fake, model):
    _, timing = build(fake, model)
    assert timing == b"+timings"
    assert build(fake, model, timing)[1] == b"+timings+timings"
    assert [call["timing"] for call in fake.calls("build_serialized_network")] == ["", "+timings"]
    for rejection in ("null", "raises", "mismatch"):
        lines = []
        plan, timing = build(fake.behave(timing_cache=rejection), model, b"of another GPU", lines.append)
        assert plan, rejection
        assert timing == b"+timings", rejection
        assert lines == ["TensorRT rejects the timing cache; starting a new one"], rejection


def test_every_error_of_a_fake_tensorrt_is_one_line_with_its_reason(fake, model, capsys):
    errors = ["In node 3 (importConv): UNSUPPORTED_NODE:\n  no weights", "In node 9 (importFoo): INVALID_NODE: Foo"]
    for behaviour, kind, message in (
        (
            {"parser_errors": errors},
            EngineError,
            "TensorRT can't read the graph: In node 3 (importConv): UNSUPPORTED_NODE: no weights; "
            "In node 9 (importFoo): INVALID_NODE: Foo",
        ),
        ({"build": "fail silently"}, EngineError, "TensorRT's build failed: no reason given"),
        ({"refused_profile": True}, EngineError, "TensorRT rejects batch sizes 1 to 8"),
        (
            {"no_cuda": True},
            EngineError,
            "TensorRT can't start: CUDA initialization failure with error: 35 Please check your CUDA installation",
        ),
        ({"version": "8.6.1"}, ConfigurationError, "TensorRT must be 10 or newer, got 8.6.1"),
        ({"build": "fail"}, EngineError, "TensorRT's build failed: Error Code 10: no kernel for node Conv_7"),
    ):
        capsys.readouterr()
        with pytest.raises(kind) as error:
            build(fake.behave(**behaviour), model)
        assert str(error.value) == message
    assert capsys.readouterr().err.splitlines()[1:] == [
        "TensorRT: a weight was rounded",
        "TensorRT: Error Code 10: no kernel for node Conv_7",
    ]
    with pytest.raises(EngineError, match="the file is not an ONNX graph"):
        build_plan(fake.behave().module(), b"\x00\x01 something else", PROFILE, b"", lambda line: None)


def test_the_fake_tensorrt_refuses_what_the_bindings_refuse(fake):
    trt = fake.behave("11").module()
    assert not hasattr(trt.BuilderFlag, "FP16")
    assert not hasattr(trt.get_plugin_registry(), "get_plugin_creator")

    class Forgetful(trt.ILogger):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="must be called when overriding"):
        trt.Builder(Forgetful())
