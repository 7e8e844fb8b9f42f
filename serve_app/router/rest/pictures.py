"""The pictures and the thresholds of a detection request."""

from dataclasses import dataclass

from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.requests import Request

from serve_app.errors import InvalidRequestError, near_miss
from serve_app.settings import DetectionSettings
from serve_app.types import Thresholds

FIELDS = ("image", "file", "images")
PARAMETERS = ("conf", "iou", "max_det", "classes", "annotate")
MAX_CLASS_DIGITS = 6
MAX_FILES, MAX_TEXTS = 1000, 16  # of a form; texts have no meaning here


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """With `many` the answer is a list of results, else one result."""

    pictures: list[bytes]
    many: bool


async def read_pictures(request: Request) -> PictureRequest:
    """A multipart form with `image`, `file` or several `images`, or the bytes of one picture."""
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        try:
            async with request.form(max_files=MAX_FILES, max_fields=MAX_TEXTS) as form:
                return await _from_form(form)
        except UnicodeError:  # charset=idna and the like, which Starlette's parser doesn't expect
            raise InvalidRequestError("the form can't be read in the charset of its content type") from None
    body = await request.body()
    if not body:
        raise InvalidRequestError(
            f"the body is empty: send a picture's bytes, or a form with one of the fields {', '.join(FIELDS)}"
        )
    return PictureRequest([body], many=False)


async def _from_form(form: FormData) -> PictureRequest:
    uploads = [(name, value) for name in FIELDS for value in form.getlist(name)]
    if not uploads:
        raise InvalidRequestError(
            f"the form has none of the fields {', '.join(FIELDS)}; it has: {', '.join(form) or 'no fields'}"
        )
    pictures = []
    for name, value in uploads:
        if not isinstance(value, UploadFile):
            raise InvalidRequestError(f"form field {name!r} must be a file, got text")
        pictures.append(await value.read())
    return PictureRequest(pictures, many=len(uploads) > 1 or uploads[0][0] == "images")


def read_thresholds(query: QueryParams, defaults: DetectionSettings) -> Thresholds:
    """conf, iou, max_det and classes; a parameter that has no meaning is refused."""
    for name in query:
        if name not in PARAMETERS:
            hint = near_miss(name, PARAMETERS, f"available: {', '.join(PARAMETERS)}")
            raise InvalidRequestError(f"unknown query parameter {name[:40]!r}{hint}")
    return Thresholds(
        confidence=_number(query, "conf", defaults.confidence, 0.0, 1.0),
        iou=_number(query, "iou", defaults.iou, 0.0, 1.0),
        max_detections=int(_number(query, "max_det", defaults.max_detections, 1, defaults.max_detections, whole=True)),
        classes=_classes(query),
    )


def read_flag(query: QueryParams, name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in ("true", "1", "false", "0"):
        raise InvalidRequestError(f"{name} must be true or false, got {text[:40]!r}")
    return text in ("true", "1")


def _number(query: QueryParams, name: str, default: float, low: float, high: float, whole: bool = False) -> float:
    text = query.get(name)
    if text is None:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise InvalidRequestError(
            f"{name} must be {'an integer' if whole else 'a number'}, got {text[:40]!r}"
        ) from None
    if not low <= value <= high:
        raise InvalidRequestError(f"{name} must be between {low} and {high}, got {text[:40]}")
    return value


def _classes(query: QueryParams) -> tuple[int, ...] | None:
    texts = [text for entry in query.getlist("classes") for text in entry.split(",")]
    if not texts:
        return None
    if not all(text.strip().isdecimal() and len(text.strip()) <= MAX_CLASS_DIGITS for text in texts):
        raise InvalidRequestError(f"classes must be a list of class numbers such as 0,2, got {','.join(texts)[:40]!r}")
    return tuple(int(text) for text in texts)
