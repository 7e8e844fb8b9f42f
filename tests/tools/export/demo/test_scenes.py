"""The drawn scenes: the same for the same seed, with boxes that are true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serve_app.tools.export.demo.scenes import HELD_OUT_SIZES, Scene, draw_scene, write_dataset
from serve_app.tools.export.demo.shapes import CLASS_NAMES


def drawn_pixels(scene: Scene) -> NDArray[np.bool_]:
    """Where a plain scene differs from its ground, which is its most frequent colour."""
    packed = scene.image.astype(np.int64) @ np.array([1, 256, 65536])
    colours, counts = np.unique(packed, return_counts=True)
    different: NDArray[np.bool_] = packed != colours[counts.argmax()]
    return different


def test_a_seed_draws_the_same_bytes_every_time() -> None:
    first, second = draw_scene(7, (640, 480)), draw_scene(7, (640, 480))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.boxes.tobytes() == second.boxes.tobytes()
    assert first.classes.tobytes() == second.classes.tobytes()


def test_another_seed_draws_another_scene() -> None:
    assert draw_scene(7).image.tobytes() != draw_scene(8).image.tobytes()


@pytest.mark.parametrize("size", HELD_OUT_SIZES)
def test_pictures_have_the_size_asked_for_and_boxes_lie_inside(size: tuple[int, int]) -> None:
    width, height = size
    for seed in range(20):
        scene = draw_scene(seed, size)
        assert scene.image.shape == (height, width, 3)
        assert scene.image.dtype == np.uint8
        assert len(scene.boxes) == len(scene.classes) > 0
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= (width, height)).all()
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()


def test_the_box_of_a_lone_shape_is_exactly_what_was_drawn() -> None:
    for seed in range(60):
        scene = draw_scene(seed, max_shapes=1, plain=True)
        ys, xs = np.nonzero(drawn_pixels(scene))
        drawn = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        np.testing.assert_array_equal(scene.boxes, [drawn], err_msg=f"seed {seed}")


def test_boxes_of_overlapping_shapes_touch_drawn_pixels_on_all_sides_and_miss_none() -> None:
    for seed in range(30):
        scene = draw_scene(seed, plain=True)
        drawn = drawn_pixels(scene)
        missed = drawn.copy()
        for x1, y1, x2, y2 in scene.boxes.astype(int):
            inside = drawn[y1:y2, x1:x2]
            assert inside[[0, -1]].any(axis=1).all(), f"seed {seed}"
            assert inside[:, [0, -1]].any(axis=0).all(), f"seed {seed}"
            # Beside a hidden edge the smooth rim of one pixel or two belongs to no box.
            missed[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = False
        assert not missed.any(), f"seed {seed}"


def test_small_pictures_hold_shapes_too() -> None:
    assert all(len(draw_scene(seed, (160, 96)).boxes) for seed in range(20))


def test_every_class_occurs() -> None:
    seen = np.concatenate([draw_scene(seed, (320, 320)).classes for seed in range(60)])
    assert set(seen.tolist()) == set(range(len(CLASS_NAMES)))
    assert len(CLASS_NAMES) >= 6


def test_a_written_dataset_is_what_ultralytics_reads(tmp_path: Path) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(write_dataset(tmp_path / "drawn", 5, seed=3)))
    dataset = YOLODataset(img_path=data["val"], data=data, augment=False, imgsz=640)

    assert tuple(data["names"].values()) == CLASS_NAMES
    assert len(dataset.labels) == 5
    for number, label in enumerate(dataset.labels):
        size = HELD_OUT_SIZES[number]
        scene = draw_scene((3, number), size)
        assert label["cls"].ravel().tolist() == scene.classes.tolist()
        corners = label["bboxes"][:, :2] - label["bboxes"][:, 2:] / 2
        np.testing.assert_allclose(corners * size, scene.boxes[:, :2], atol=0.01)


def test_a_dataset_is_not_written_over_another(tmp_path: Path) -> None:
    write_dataset(tmp_path, 1, seed=1)
    with pytest.raises(FileExistsError, match="images"):
        write_dataset(tmp_path, 1, seed=2)
