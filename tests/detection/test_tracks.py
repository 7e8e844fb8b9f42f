"""The tracks, and the names of their endpoints and models."""

from serve_app.detection.tracks import tracks_of


def test_each_size_has_six_tracks_with_documented_endpoints():
    paths = {track.design.name: track.path for track in tracks_of(["small"], ["small"])}
    assert paths == {
        "A": "/pytorch/predict/small",
        "B": "/predict/small",
        "C": "/predict/small_end2end",
        "D1": "/predict/small_gpu_e2e_streaming",
        "D2": "/predict/small_gpu_e2e",
        "D3": "/predict/small_gpu_e2e_batch",
    }


def test_a_model_is_named_like_its_endpoint():
    assert {track.model for track in tracks_of(["nano"], [])} == {
        "yolo_nano",
        "yolo_nano_end2end",
        "yolo_nano_gpu_e2e_streaming",
        "yolo_nano_gpu_e2e",
        "yolo_nano_gpu_e2e_batch",
    }


def test_only_the_configured_sizes_have_a_baseline():
    names = [(track.size, track.design.name) for track in tracks_of(["nano", "small"], ["small"])]
    assert ("small", "A") in names
    assert ("nano", "A") not in names
    assert len(names) == 11
