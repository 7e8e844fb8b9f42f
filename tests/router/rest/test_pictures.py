"""The thresholds in a detection request's query, and the charset of its form."""

import pytest
from starlette.datastructures import QueryParams
from starlette.requests import Request

from serve_app.errors import InvalidRequestError
from serve_app.router.rest.pictures import read_pictures, read_thresholds
from serve_app.settings import DetectionSettings
from serve_app.types import Thresholds

DEFAULTS = DetectionSettings(confidence=0.3, iou=0.6, max_detections=100)


def test_thresholds_come_from_the_query_and_else_from_the_configuration():
    assert read_thresholds(QueryParams(""), DEFAULTS) == Thresholds(0.3, 0.6, 100, None)
    given = read_thresholds(QueryParams("conf=0.5&iou=0.4&max_det=7&classes=1,2&classes=5"), DEFAULTS)
    assert given == Thresholds(0.5, 0.4, 7, (1, 2, 5))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("conf=-0.1", "conf must be between 0.0 and 1.0, got -0.1"),
        ("conf=inf", "conf must be between 0.0 and 1.0, got inf"),
        ("iou=", "iou must be a number, got ''"),
        ("max_det=0", "max_det must be between 1 and 100, got 0"),
        ("max_det=101", "max_det must be between 1 and 100, got 101"),
        ("classes=", "classes must be a list of class numbers such as 0,2, got"),
        ("classes=1,-2", "classes must be a list of class numbers such as 0,2, got"),
        ("classes=" + "9" * 5000, "classes must be a list of class numbers such as 0,2, got"),
        ("cnof=0.4", "unknown query parameter 'cnof'; did you mean 'conf'?"),
        ("conf=0.5&size=nano", "unknown query parameter 'size'; available: conf, iou, max_det, classes, annotate"),
        ("classes=²", "classes must be a list of class numbers such as 0,2, got"),
    ],
)
def test_a_wrong_threshold_is_named(query, message):
    with pytest.raises(InvalidRequestError) as caught:
        read_thresholds(QueryParams(query), DEFAULTS)
    assert message in caught.value.message


async def test_a_form_in_a_charset_that_cannot_decode_it_is_a_callers_mistake():
    async def receive():
        part = b'Content-Disposition: form-data; name="xn--a"\r\n\r\nx\r\n'
        return {"type": "http.request", "body": b"--b\r\n" + part + b"--b--\r\n"}

    for charset in (b"idna", b"undefined"):
        headers = [(b"content-type", b"multipart/form-data; boundary=b; charset=" + charset)]
        with pytest.raises(InvalidRequestError, match="can't be read in the charset"):
            await read_pictures(Request({"type": "http", "headers": headers}, receive))
