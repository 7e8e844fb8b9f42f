"""The ladder of tracks, and the names that follow from it."""

from serve_app.detection.tracks import tracks_of


def test_six_tracks_for_each_size_with_the_endpoints_of_the_ladder():
    paths = {track.design.name: track.path for track in tracks_of(["small"], ["small"])}
    assert paths == {
        "A": "/pytorch/predict/small",
        "B": "/predict/small",
        "C": "/predict/small_end2end",
        "D1": "/predict/small_gpu_e2e_streaming",
        "D2": "/predict/small_gpu_e2e",
        "D3": "/predict/small_gpu_e2e_batch",
    }


def test_a_model_is_called_as_its_endpoint():
    assert {track.model for track in tracks_of(["nano"], [])} == {
        "yolo_nano",
        "yolo_nano_end2end",
        "yolo_nano_gpu_e2e_streaming",
        "yolo_nano_gpu_e2e",
        "yolo_nano_gpu_e2e_batch",
    }


def test_the_baseline_stands_only_where_it_is_asked_for():
    names = [(track.size, track.design.name) for track in tracks_of(["nano", "small"], ["small"])]
    assert ("small", "A") in names
    assert ("nano", "A") not in names
    assert len(names) == 11
