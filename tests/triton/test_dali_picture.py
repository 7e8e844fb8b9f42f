"""DALI's preprocessing as a model in real Triton: batches of several requests, with and without broken pictures."""

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from serve_app.detection.preprocess import decode, letterbox
from serve_app.errors import InvalidRequestError, ModelLoadError
from serve_app.triton.protocol import Protocol
from serve_app.triton.python_models.dali_pipeline import build_pipeline
from serve_app.types.tensors import InferRequest, Tensor

SIDE = 320
LIMIT = 1_000_000
CONFIG = f"""
name: "pictures"
backend: "python"
max_batch_size: 4
input [ {{ name: "encoded" data_type: TYPE_UINT8 dims: [ -1 ] allow_ragged_batch: true }} ]
output [
  {{ name: "images" data_type: TYPE_UINT8 dims: [ {SIDE}, {SIDE}, 3 ] }},
  {{ name: "original_size" data_type: TYPE_INT32 dims: [ 2 ] }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "device" value {{ string_value: "cpu" }} }}
parameters {{ key: "threads" value {{ string_value: "1" }} }}
parameters {{ key: "max_pixels" value {{ string_value: "{LIMIT}" }} }}
dynamic_batching {{ max_queue_delay_microseconds: 200000 preferred_batch_size: [ 3 ] }}
"""
MODEL_PY = "from serve_app.triton.python_models.dali_picture import TritonPythonModel\n"


def picture(width, height, kind="JPEG", seed=1):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, kind)
    return buffer.getvalue()


def damaged(data):
    """With an intact header and end marker, so that only decoding finds the damage."""
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, repository_in, run_models):
    folder = tmp_path_factory.mktemp("repository")
    repository_in(folder).add("pictures", MODEL_PY, config=CONFIG)
    return Protocol(run_models(folder, "pictures"))


async def preprocess(protocol, *pictures):
    """Pictures of the same number of bytes in one request."""
    data = b"".join(pictures)
    shape = (len(pictures), len(data) // len(pictures))
    answer = await protocol.infer(InferRequest("pictures", inputs=(Tensor("encoded", "UINT8", shape, data),)))
    found = {output.name: output.array() for output in answer.outputs}
    return found["images"], found["original_size"]


def assert_letterboxed(answer, *pictures):
    images, sizes = answer
    assert (images.shape, images.dtype) == ((len(pictures), SIDE, SIDE, 3), np.uint8)
    for image, size, data in zip(images, sizes, pictures, strict=True):
        expected, box = letterbox(decode(data, LIMIT), SIDE)
        assert size.tolist() == [box.width, box.height]
        assert np.abs(image.astype(int) - expected).max() <= 1


def assert_made_by_dali(answer, data):
    """Bit for bit; the preprocessing in Python differs from DALI in the last bits."""
    pipeline = build_pipeline(SIDE, 1, 1, "cpu")
    images, sizes = pipeline.run(encoded=[np.frombuffer(data, np.uint8)])
    assert np.array_equal(answer[0], images.as_array())
    assert np.array_equal(answer[1], sizes.as_array())
    assert not np.array_equal(answer[0][0], letterbox(decode(data, LIMIT), SIDE)[0])


async def batches_of_three(protocol, more_than=-1):
    """The number of batches so far; Triton counts a moment after it has answered."""
    count = -1
    while count <= more_than:
        await asyncio.sleep(0.01)
        (row,) = protocol.statistics("pictures")
        count = sum(batch["compute_infer"]["count"] for batch in row["batch_stats"] if batch["batch_size"] == 3)
    return count


async def test_pictures_of_several_requests_are_one_batch(protocol):
    before = await batches_of_three(protocol)
    pictures = [picture(640, 480), picture(90, 200, "PNG"), picture(333, 17, "WEBP")]
    answers = await asyncio.gather(*(preprocess(protocol, data) for data in pictures))
    for data, answer in zip(pictures, answers, strict=True):
        assert_letterboxed(answer, data)
        assert_made_by_dali(answer, data)
    assert await batches_of_three(protocol, more_than=before) == before + 1


async def test_a_request_with_several_pictures_gets_them_in_order(protocol):
    pictures = [picture(64, 48, "BMP", seed) for seed in range(2)]
    assert_letterboxed(await preprocess(protocol, *pictures), *pictures)


WHOLE = picture(300, 200)
BROKEN = {
    "not a picture": (b"hello", "the 5 bytes are not a picture in a supported format (JPEG, PNG, WEBP, BMP)"),
    "a header that is broken": (WHOLE[:30], "the JPEG picture's header can't be read: OSError"),
    "too many pixels": (
        picture(1200, 1000, "PNG"),
        "the picture has 1200x1000 = 1200000 pixels, over the limit of 1000000",
    ),
    "cut off": (WHOLE[: len(WHOLE) // 2], "the JPEG picture is cut off"),
    "broken inside, for which DALI refuses the whole batch": (
        damaged(picture(300, 200, "PNG")),
        "the PNG picture of 300x200 can't be decoded",
    ),
}


async def test_a_broken_picture_fails_only_its_own_request_with_its_reason(protocol):
    first, last = picture(640, 480), picture(200, 300, "PNG")
    for kind, (broken, reason) in BROKEN.items():
        before = await batches_of_three(protocol)
        requests = (preprocess(protocol, data) for data in (first, broken, last))
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert_letterboxed(answers[0], first)
        assert_letterboxed(answers[2], last)
        assert (type(answers[1]), answers[1].message) == (InvalidRequestError, reason), kind
        assert await batches_of_three(protocol, more_than=before) == before + 1, kind
    assert_made_by_dali(await preprocess(protocol, first), first)


async def test_dali_fills_the_missing_part_of_a_jpeg_that_has_its_end_marker(protocol):
    """The preprocessing in Python refuses such a picture."""
    images, sizes = await preprocess(protocol, WHOLE[: len(WHOLE) // 2] + WHOLE[-2:])
    assert sizes.tolist() == [[300, 200]]
    assert (images[0, 230:250] == 128).all()


async def test_an_unknown_device_is_refused(repository, run_models):
    repository.add("pictures", MODEL_PY, config=CONFIG.replace('"cpu"', '"gpu"'))
    with pytest.raises(ModelLoadError, match="parameter device must be cpu or cuda, got 'gpu'"):
        run_models(repository.path, "pictures")
