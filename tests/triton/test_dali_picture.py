"""DALI's preprocessing as a model in real Triton: pictures of several requests in one batch, broken ones among them."""

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
dynamic_batching {{ max_queue_delay_microseconds: 500000 preferred_batch_size: [ 3 ] }}
"""
MODEL_PY = "from serve_app.triton.python_models.dali_picture import TritonPythonModel\n"


def picture(width, height, kind="JPEG", seed=1):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, kind)
    return buffer.getvalue()


def damaged(data):
    """Complete at both ends, so that the header and the end marker tell nothing."""
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, repository_in, run_models):
    folder = tmp_path_factory.mktemp("repository")
    repository_in(folder).add("pictures", MODEL_PY, config=CONFIG)
    return Protocol(run_models(folder, "pictures"))


async def ask(protocol, *pictures):
    """Pictures of the same number of bytes in one request."""
    data = b"".join(pictures)
    shape = (len(pictures), len(data) // len(pictures))
    answer = await protocol.infer(InferRequest("pictures", inputs=(Tensor("encoded", "UINT8", shape, data),)))
    found = {output.name: output.array() for output in answer.outputs}
    return found["images"], found["original_size"]


def assert_right(answer, *pictures):
    images, sizes = answer
    assert (images.shape, images.dtype) == ((len(pictures), SIDE, SIDE, 3), np.uint8)
    for image, size, data in zip(images, sizes, pictures, strict=True):
        expected, box = letterbox(decode(data, LIMIT), SIDE)
        assert size.tolist() == [box.width, box.height]
        assert np.abs(image.astype(int) - expected).max() <= 1


def assert_made_by_dali(answer, data):
    """To the last bit, by which it differs from what the preprocessing in Python makes."""
    pipeline = build_pipeline(SIDE, 1, 1, "cpu")
    images, sizes = pipeline.run(encoded=[np.frombuffer(data, np.uint8)])
    assert np.array_equal(answer[0], images.as_array())
    assert np.array_equal(answer[1], sizes.as_array())
    assert not np.array_equal(answer[0][0], letterbox(decode(data, LIMIT), SIDE)[0])


async def batches_of_three(protocol, more_than=-1):
    """How many there were so far; Triton counts a moment after it has answered."""
    count = -1
    while count <= more_than:
        await asyncio.sleep(0.01)
        (row,) = protocol.statistics("pictures")
        count = sum(batch["compute_infer"]["count"] for batch in row["batch_stats"] if batch["batch_size"] == 3)
    return count


async def test_pictures_of_several_requests_are_one_batch(protocol):
    before = await batches_of_three(protocol)
    pictures = [picture(640, 480), picture(90, 200, "PNG"), picture(333, 17, "WEBP")]
    answers = await asyncio.gather(*(ask(protocol, data) for data in pictures))
    for data, answer in zip(pictures, answers, strict=True):
        assert_right(answer, data)
        assert_made_by_dali(answer, data)
    assert await batches_of_three(protocol, more_than=before) == before + 1


async def test_a_request_of_several_pictures_gets_them_in_its_order(protocol):
    pictures = [picture(64, 48, "BMP", seed) for seed in range(2)]
    assert_right(await ask(protocol, *pictures), *pictures)


WHOLE = picture(300, 200)
BROKEN = {
    "no picture at all": (b"hello", "the 5 bytes are no picture in a format read here: JPEG, PNG, WEBP, BMP"),
    "a header that is broken": (WHOLE[:30], "the JPEG picture's header can't be read: OSError"),
    "too many pixels": (
        picture(1200, 1000, "PNG"),
        "the picture has 1200x1000 = 1200000 pixels, over the limit of 1000000",
    ),
    "cut off": (WHOLE[: len(WHOLE) // 2], "the JPEG picture is cut off"),
    "refused by DALI, and its batch with it": (
        damaged(picture(300, 200, "PNG")),
        "the PNG picture of 300x200 can't be decoded",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_picture_fails_alone_and_with_its_reason(protocol, kind):
    broken, reason = BROKEN[kind]
    before = await batches_of_three(protocol)
    first, last = picture(640, 480), picture(200, 300, "PNG")
    answers = await asyncio.gather(*(ask(protocol, data) for data in (first, broken, last)), return_exceptions=True)
    assert_right(answers[0], first)
    assert_right(answers[2], last)
    assert (type(answers[1]), answers[1].message) == (InvalidRequestError, reason)
    assert await batches_of_three(protocol, more_than=before) == before + 1
    assert_made_by_dali(await ask(protocol, first), first)


async def test_a_jpeg_that_lacks_a_part_but_has_its_end_is_answered(protocol):
    """The model in Python refuses it; DALI fills what is missing with grey and tells nobody."""
    images, sizes = await ask(protocol, WHOLE[: len(WHOLE) // 2] + WHOLE[-2:])
    assert sizes.tolist() == [[300, 200]]
    assert (images[0, 230:250] == 128).all()


async def test_a_device_that_there_is_not_is_named(repository, run_models):
    repository.add("pictures", MODEL_PY, config=CONFIG.replace('"cpu"', '"gpu"'))
    with pytest.raises(ModelLoadError, match="the parameter device is 'gpu', it can be cpu or cuda"):
        run_models(repository.path, "pictures")
