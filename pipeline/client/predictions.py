"""From the server's JSON to checked pictures."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.client.errors import BadAnswer, PictureWithheld
from pipeline.client.picture_files import save_pictures
from pipeline.client.request_body import Asked
from pipeline.plain_text import one_line

FORMATS = ("jpeg", "png", "webp")
# 4096 x 4096: sixteen times the handler's usual limit, and 50 MB once it is decoded.
MOST_PIXELS = 1 << 24
MOST_WARNINGS = 100


@dataclass(frozen=True)
class Prediction:
    """One picture as the server encoded it: ``data`` opens with Pillow, ``width`` and ``height`` are pixels.

    ``format`` is "jpeg", "png" or "webp". ``seed`` is the one that was sent: with it the same request draws
    the same picture. ``receipt`` is the server's (``response: "full"``), else empty. ``warnings`` are
    sentences about this picture, such as that the end of a long prompt was not used. ``withheld``: the
    server's safety checker flagged it and it is not sent, so ``data`` is empty; others of the request came.
    """

    data: bytes = field(repr=False)
    format: str
    width: int
    height: int
    seed: int | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    withheld: bool = False

    def save(self, path: Path) -> None:
        """Write the encoded picture, as it came: whole or not at all. Raises OSError, or PictureWithheld."""
        if self.withheld:
            raise PictureWithheld
        save_pictures([(path, self.data)])


def parse_predictions(answer: Any, asked: Sequence[Asked]) -> list[Prediction]:
    """All pictures that were ``asked`` for, those of one instance after those of the one before.

    Raises BadAnswer where the answer holds anything else.
    """
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(predictions, list) or len(predictions) != len(asked):
        count = len(predictions) if isinstance(predictions, list) else "no"
        what = "pictures" if all(len(one.seeds) == 1 for one in asked) else "predictions"
        raise BadAnswer(f"{len(asked)} {what} were asked for, {count} came", status=200)
    told = _warnings(answer.get("warnings"))
    parsed: list[Prediction] = []
    for index, (prediction, wanted) in enumerate(zip(predictions, asked, strict=True)):
        drawn = parse_prediction(prediction, wanted)
        parsed += [replace(one, warnings=one.warnings or told.get(index, ())) for one in drawn]
    return parsed


def parse_prediction(prediction: Any, asked: Asked) -> list[Prediction]:
    """The pictures of one instance, decoded down to their pixels.

    One picture comes as base64 text or as ``{"image", "receipt"}``, several as a list of base64 texts or as
    ``{"images", "receipts"}``. Raises BadAnswer.
    """
    whole = prediction if isinstance(prediction, dict) else {}
    if isinstance(error := whole.get("error"), dict):
        message = one_line(str(error.get("message")))
        raise BadAnswer(f"instead of a picture came: {message}", status=200)
    # Vertex's predict route keeps nothing beside the predictions, so a full one brings its own warnings.
    told = tuple(line for lines in _warnings(whole.get("warnings")).values() for line in lines)
    sent = _one(prediction) if len(asked.seeds) == 1 else _several(prediction, len(asked.seeds))
    return [_picture(*one, asked, seed, told) for one, seed in zip(sent, asked.seeds, strict=True)]


def _one(prediction: Any) -> list[tuple[str | None, dict[str, Any]]]:
    """base64 text and receipt of the only picture; no text where it is withheld."""
    whole = prediction if isinstance(prediction, dict) else {"image": prediction}
    encoded, receipt = whole.get("image"), whole.get("receipt", {})
    if is_withheld(encoded, prediction) and isinstance(receipt, dict | None):
        return [(None, receipt or {})]
    if not isinstance(encoded, str) or not isinstance(receipt, dict):
        raise BadAnswer(f"a prediction is no picture: {_begin(prediction)}", status=200)
    return [(encoded, receipt)]


def _several(prediction: Any, count: int) -> list[tuple[str | None, dict[str, Any]]]:
    """base64 text and receipt of each of ``count`` pictures; no text where one is withheld."""
    full = isinstance(prediction, dict)
    images = prediction.get("images") if full else prediction
    receipts = prediction.get("receipts") if full else [{}] * count
    for name, found in (("pictures", images), ("receipts", receipts)):
        if not isinstance(found, list):
            raise BadAnswer(f"a prediction has no list of {name}: {_begin(prediction)}", status=200)
        if len(found) != count:
            raise BadAnswer(f"{count} {name} were asked for in one prediction, {len(found)} came", status=200)
    for index, image in enumerate(images):
        if not isinstance(image, str) and not is_withheld(image, prediction, index):
            raise BadAnswer(f"a prediction's pictures are none: {_begin(images)}", status=200)
    if not all(isinstance(one, dict) for one in receipts):
        raise BadAnswer(f"a prediction's receipts are none: {_begin(receipts)}", status=200)
    return list(zip(images, receipts, strict=True))


def is_withheld(image: Any, prediction: Any, index: int = 0) -> bool:
    """Whether the picture of that index is withheld: null, and a full prediction says so in ``safety``."""
    if image is not None:
        return False
    if not isinstance(prediction, dict):
        return True
    told = prediction.get("safety")
    safety = told[index] if isinstance(told, list) and index < len(told) else told
    return isinstance(safety, dict) and safety.get("action") == "withheld"


def _picture(
    encoded: str | None, receipt: dict[str, Any], asked: Asked, seed: int | None, told: tuple[str, ...]
) -> Prediction:
    if encoded is None:
        return Prediction(b"", "", 0, 0, seed, receipt, told, withheld=True)
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise BadAnswer(f"a prediction is no base64: {_begin(encoded)}", status=200) from None
    format_name, width, height = _look(data)
    _compare(format_name, width, height, asked)
    return Prediction(data, format_name, width, height, seed, receipt, told)


def _look(data: bytes) -> tuple[str, int, int]:
    """Format, width and height of a picture that decodes to its last pixel."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        with image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise BadAnswer(f"a picture of {width}x{height} came, which is not opened", status=200)
            image.load()
            return (image.format or "").lower(), width, height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadAnswer("a picture of far too many pixels came, which is not opened", status=200) from None
    except UnidentifiedImageError:
        message = f"{len(data):,} bytes came that are no {', '.join(FORMATS)}: {_begin(data)}"
        raise BadAnswer(message, status=200) from None
    # What Pillow's decoders raise for files that are broken further inside.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        raise BadAnswer(f"a picture is broken: {one_line(str(error), 100)}", status=200) from None


def _compare(format_name: str, width: int, height: int, asked: Asked) -> None:
    came = {"format": format_name, "width": width, "height": height}
    for name, wanted in (("format", asked.format), ("width", asked.width), ("height", asked.height)):
        if wanted is not None and wanted != came[name]:
            message = (
                f"a picture of {name} {came[name]} came, but {name} {one_line(str(wanted), 80)} was asked for"
            )
            raise BadAnswer(message, status=200)


def _begin(value: Any) -> str:
    return repr(value[:60] if isinstance(value, (str, bytes, list)) else type(value).__name__)[:200]


def _warnings(told: Any) -> dict[Any, tuple[str, ...]]:
    """The first hundred of the server's warnings by the index of their instance; others are left out."""
    found: dict[Any, tuple[str, ...]] = {}
    for one in told[:MOST_WARNINGS] if isinstance(told, list) else ():
        if isinstance(one, dict) and isinstance(one.get("message"), str):
            index = one.get("instance")
            index = index if isinstance(index, int) else None
            found[index] = (*found.get(index, ()), one_line(one["message"]))
    return found
