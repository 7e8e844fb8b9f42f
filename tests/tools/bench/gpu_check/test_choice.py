"""Which engines can run is decided by what was found alone."""

import pytest

from serve_app.tools.bench.gpu_check.engines import ENGINES, NEEDS, choose, computed_in, why_no_baseline

ON_PYTHON_ALONE = ("triton.tensorrt", "triton.dali", "triton.onnxruntime", "plans")


def chosen(findings, device, detection, *wanted):
    return {choice.engine: choice for choice in choose(findings, device, detection, wanted or ENGINES)}


def test_where_everything_is_there_every_engine_runs(findings_without, detection_of):
    choices = chosen(findings_without(), "cuda", detection_of())
    assert list(choices) == list(ENGINES)
    assert all(choice.runs and not choice.pipeline_reasons for choice in choices.values())


@pytest.mark.parametrize(
    ("device", "missing", "engine", "reasons"),
    [
        ("cuda", ("gpu",), "tensorrt", ["no gpu"]),
        ("cuda", ("gpu", "torch.cuda"), "python-torch", ["no gpu", "no torch.cuda"]),
        ("cuda", ("triton.tensorrt",), "tensorrt", ["no triton.tensorrt"]),
        ("cuda", ("plans",), "tensorrt", ["no plans"]),
        ("cuda", ("tensorrt",), "tensorrt", []),
        ("cuda", ("dali",), "onnxruntime", ["no dali"]),
        ("cuda", ("triton.onnxruntime",), "onnxruntime", ["no triton.onnxruntime"]),
        ("cuda", ("torch.cuda",), "python-torch", ["no torch.cuda"]),
        ("cuda", ("onnxruntime.cuda",), "python-onnxruntime", ["no onnxruntime.cuda"]),
        ("cuda", ("triton.python",), "python-torch", ["no triton.python"]),
        ("cuda", ("onnxruntime.cuda",), "python-torch", []),
        ("cuda", ON_PYTHON_ALONE, "python-onnxruntime", []),
        ("cpu", ("gpu", "torch.cuda", "dali.cuda", "onnxruntime.cuda"), "python-torch", []),
        ("cpu", ("gpu",), "python-onnxruntime", []),
        ("cpu", ("torch",), "python-torch", ["no torch"]),
        ("cpu", (), "tensorrt", ["tensorrt has no use for the processor"]),
    ],
)
def test_what_is_missing_is_the_reason(findings_without, detection_of, device, missing, engine, reasons):
    choice = chosen(findings_without(*missing), device, detection_of())[engine]
    assert list(choice.reasons) == reasons
    assert choice.runs == (not reasons)


@pytest.mark.parametrize(
    ("device", "missing", "engine"),
    [
        ("cuda", "triton.dali", "tensorrt"),
        ("cuda", "triton.dali", "onnxruntime"),
        ("cuda", "dali.cuda", "python-torch"),
        ("cpu", "dali", "python-onnxruntime"),
    ],
)
def test_without_the_reader_the_engine_runs_but_for_track_d(findings_without, detection_of, device, missing, engine):
    choice = chosen(findings_without(missing), device, detection_of())[engine]
    assert choice.runs
    assert choice.pipeline_reasons == (f"no {missing}",)


def test_what_was_never_looked_for_is_not_there(detection_of):
    reasons = chosen([], "cuda", detection_of())["python-torch"].reasons
    assert reasons == tuple(f"{key} was not looked for" for key in NEEDS["cuda", "python-torch"])


def test_what_an_engine_does_not_compute_in_it_does_in_f32_and_that_is_told(findings_without, detection_of):
    choices = chosen(findings_without(), "cuda", detection_of(nano="f16", small="fp8"))
    assert choices["tensorrt"].remarks == ()
    assert choices["python-torch"].remarks == ("small in f32: python-torch doesn't compute in fp8 on this device",)
    assert len(choices["onnxruntime"].remarks) == 2
    assert all(choice.runs for choice in choices.values())


@pytest.mark.parametrize(
    ("device", "engine", "precision", "computed"),
    [
        ("cuda", "python-torch", "f16", "f16"),
        ("cpu", "python-torch", "f16", "f32"),
        ("cpu", "python-torch", "bf16", "bf16"),
        ("cpu", "python-onnxruntime", "f16", "f16"),
        ("cuda", "onnxruntime", "f16", "f32"),
        ("cuda", "tensorrt", "fp8", "fp8"),
    ],
)
def test_the_precision_is_the_one_that_is_computed_in(device, engine, precision, computed):
    assert computed_in(device, engine, precision) == computed


def test_engines_that_were_not_asked_for_are_left_out_and_named(findings_without, detection_of):
    choices = chosen(findings_without(), "cuda", detection_of(), "python-torch")
    assert [engine for engine, choice in choices.items() if choice.runs] == ["python-torch"]
    assert choices["tensorrt"].reasons == ("left out by --engine",)


def test_track_a_needs_pytorch_on_the_device(findings_without):
    assert why_no_baseline(findings_without("torch.cuda"), "cuda") == ("no torch.cuda",)
    assert why_no_baseline(findings_without("torch.cuda", "gpu"), "cpu") == ()
