"""Checks the smoke picture: not one flat colour, and like the expected picture if there is one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.client.predictions import Prediction
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from PIL.Image import Image

# Mean difference per channel, of 255. JPEG and rounding stay below it; a different picture is far above.
_LARGEST_DIFFERENCE = 12.0
_SMALLEST_SPREAD = 2.0
_LARGEST_SIDE = 4096  # pixels; larger than any served picture, and it bounds the memory of a decode


@dataclass(frozen=True)
class Expected:
    """The decoded picture that the smoke picture must look like, and its file."""

    path: Path
    picture: Image


def read_expected(path: Path) -> Expected:
    """Decode the whole file. Raises MarqueeError when it is missing, unreadable or no picture."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise MarqueeError(f"smoke.expected: {path} {found}", cure="name a PNG, JPEG or WebP file")
    try:
        with Image.open(path) as encoded:
            if max(encoded.size) > _LARGEST_SIDE:
                raise MarqueeError(
                    f"smoke.expected: {path} has {encoded.width}x{encoded.height} pixels",
                    cure=f"at most {_LARGEST_SIDE} on a side: the picture that the model draws",
                )
            return Expected(path, encoded.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise MarqueeError(
            f"smoke.expected: {path} is not a readable picture", cure="name a PNG, JPEG or WebP file"
        ) from error
    except OSError as error:
        why = error.strerror or "the file ends too early"
        raise MarqueeError(
            f"smoke.expected: {path} cannot be read: {why}", cure="name a PNG, JPEG or WebP file"
        ) from error


def check_picture(prediction: Prediction, expected: Expected | None) -> str:
    """A sentence that says what is wrong with a picture, "" when nothing is."""
    from PIL import Image, ImageChops, ImageStat

    if prediction.withheld:
        return "the smoke picture is withheld: the archive's safety checker flagged it"
    try:
        with Image.open(io.BytesIO(prediction.data)) as encoded:
            picture = encoded.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return "the smoke picture cannot be decoded"
    if max(ImageStat.Stat(picture).stddev) < _SMALLEST_SPREAD:
        return "the smoke picture is one flat colour: NaNs, a safety filter or broken weights"
    if expected is None:
        return ""
    if expected.picture.size != picture.size:
        return f"the smoke picture is {picture.size} pixels, the expected one {expected.picture.size}"
    difference = max(ImageStat.Stat(ImageChops.difference(picture, expected.picture)).mean)
    if difference > _LARGEST_DIFFERENCE:
        return f"the smoke picture differs from {expected.path} by {difference:.1f} of 255 on average"
    return ""
