"""The drawn scenes are reproducible, and their boxes are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serve_app.tools.export.demo.scenes import HELD_OUT_SIZES, Scene, draw_scene, write_dataset
from serve_app.tools.export.demo.shapes import CLASS_NAMES


def drawn_pixels(scene: Scene) -> NDArray[np.bool_]:
    """Where a plain scene differs from its background, which is its most frequent colour."""
    packed = scene.image.astype(np.int64) @ np.array([1, 256, 65536])
    colours, counts = np.unique(packed, return_counts=True)
    different: NDArray[np.bool_] = packed != colours[counts.argmax()]
    return different


def test_a_seed_always_draws_the_same_scene_and_another_seed_another_one() -> None:
    first, second = draw_scene(7, (640, 480)), draw_scene(7, (640, 480))
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()
    assert draw_scene(8, (640, 480)).image.tobytes() != first.image.tobytes()


def test_pictures_of_any_size_hold_shapes_of_every_class_with_boxes_inside() -> None:
    seen: set[int] = set()
    for width, height in (*HELD_OUT_SIZES, (160, 96)):
        for seed in range(4):
            scene = draw_scene(seed, (width, height))
            assert (scene.image.shape, scene.image.dtype) == ((height, width, 3), np.uint8)
            assert len(scene.boxes) == len(scene.classes) > 0
            assert (scene.boxes[:, :2] >= 0).all()
            assert (scene.boxes[:, 2:] <= (width, height)).all()
            assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
            seen |= set(scene.classes.tolist())
    assert seen == set(range(len(CLASS_NAMES)))
    assert len(CLASS_NAMES) >= 6


def test_the_box_of_a_single_shape_is_exactly_what_was_drawn() -> None:
    for seed in range(30):
        scene = draw_scene(seed, max_shapes=1, plain=True)
        ys, xs = np.nonzero(drawn_pixels(scene))
        drawn = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        np.testing.assert_array_equal(scene.boxes, [drawn], err_msg=f"seed {seed}")


def test_boxes_of_overlapping_shapes_touch_drawn_pixels_on_all_sides_and_cover_all_of_them() -> None:
    for seed in range(15):
        scene = draw_scene(seed, plain=True)
        drawn = drawn_pixels(scene)
        missed = drawn.copy()
        for x1, y1, x2, y2 in scene.boxes.astype(int):
            inside = drawn[y1:y2, x1:x2]
            assert inside[[0, -1]].any(axis=1).all(), f"seed {seed}"
            assert inside[:, [0, -1]].any(axis=0).all(), f"seed {seed}"
            # Beside a covered edge one or two pixels of antialiasing belong to no box.
            missed[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = False
        assert not missed.any(), f"seed {seed}"


def test_a_dataset_is_read_by_ultralytics_and_never_overwritten(tmp_path: Path) -> None:
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
    with pytest.raises(FileExistsError, match="images"):
        write_dataset(tmp_path / "drawn", 1, seed=2)
