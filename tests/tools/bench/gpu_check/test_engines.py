"""Which engines can run is decided by the findings alone."""

from serve_app.tools.bench.gpu_check.engines import ENGINES, NEEDS, baseline_reasons, choose_engines, computed_in


def choices(findings, device, detection, *wanted):
    return {choice.engine: choice for choice in choose_engines(findings, device, detection, wanted or ENGINES)}


def test_with_every_component_every_engine_runs(made):
    found = choices(made.findings(), "cuda", made.detection())
    assert list(found) == list(ENGINES)
    assert all(choice.runs and not choice.pipeline_reasons for choice in found.values())


def test_a_missing_component_is_the_reason(made):
    python_only = ("triton.tensorrt", "triton.dali", "triton.onnxruntime", "plans")
    for device, missing, engine, reasons in (
        ("cuda", ("gpu",), "tensorrt", ["no gpu"]),
        ("cuda", ("gpu", "torch.cuda"), "python-torch", ["no gpu", "no torch.cuda"]),
        ("cuda", ("triton.tensorrt",), "tensorrt", ["no triton.tensorrt"]),
        ("cuda", ("plans",), "tensorrt", ["no plans"]),
        ("cuda", ("tensorrt",), "tensorrt", []),
        ("cuda", ("dali",), "onnxruntime", ["no dali"]),
        ("cuda", ("triton.onnxruntime",), "onnxruntime", ["no triton.onnxruntime"]),
        ("cuda", ("onnxruntime.cuda",), "python-onnxruntime", ["no onnxruntime.cuda"]),
        ("cuda", ("triton.python",), "python-torch", ["no triton.python"]),
        ("cuda", ("onnxruntime.cuda",), "python-torch", []),
        ("cuda", python_only, "python-onnxruntime", []),
        ("cpu", ("gpu", "torch.cuda", "dali.cuda", "onnxruntime.cuda"), "python-torch", []),
        ("cpu", ("torch",), "python-torch", ["no torch"]),
        ("cpu", (), "tensorrt", ["tensorrt does not run on a processor"]),
    ):
        choice = choices(made.findings(*missing), device, made.detection())[engine]
        assert (list(choice.reasons), choice.runs) == (reasons, not reasons), (device, missing, engine)


def test_without_dali_the_engine_runs_all_tracks_but_d(made):
    for device, missing, engine in (
        ("cuda", "triton.dali", "tensorrt"),
        ("cuda", "triton.dali", "onnxruntime"),
        ("cuda", "dali.cuda", "python-torch"),
        ("cpu", "dali", "python-onnxruntime"),
    ):
        choice = choices(made.findings(missing), device, made.detection())[engine]
        assert (choice.runs, choice.pipeline_reasons) == (True, (f"no {missing}",)), engine


def test_a_component_that_was_not_probed_is_missing(made):
    reasons = choices([], "cuda", made.detection())["python-torch"].reasons
    assert reasons == tuple(f"{key} was not probed" for key in NEEDS["cuda", "python-torch"])


def test_an_engine_that_cannot_compute_in_a_precision_uses_f32_and_says_so(made):
    found = choices(made.findings(), "cuda", made.detection(nano="f16", small="fp8"))
    assert found["tensorrt"].remarks == ()
    assert found["python-torch"].remarks == ("small in f32: python-torch can't compute in fp8 on this device",)
    assert len(found["onnxruntime"].remarks) == 2
    for device, engine, precision, computed in (
        ("cuda", "python-torch", "f16", "f16"),
        ("cpu", "python-torch", "f16", "f32"),
        ("cpu", "python-torch", "bf16", "bf16"),
        ("cpu", "python-onnxruntime", "f16", "f16"),
        ("cuda", "onnxruntime", "f16", "f32"),
        ("cuda", "tensorrt", "fp8", "fp8"),
    ):
        assert computed_in(device, engine, precision) == computed, (device, engine, precision)


def test_engines_that_were_not_requested_are_left_out(made):
    found = choices(made.findings(), "cuda", made.detection(), "python-torch")
    assert [engine for engine, choice in found.items() if choice.runs] == ["python-torch"]
    assert found["tensorrt"].reasons == ("left out by --engine",)


def test_track_a_needs_pytorch_on_the_device(made):
    assert baseline_reasons(made.findings("torch.cuda"), "cuda") == ("no torch.cuda",)
    assert baseline_reasons(made.findings("torch.cuda", "gpu"), "cpu") == ()
