"""How close two pictures are, and how close they must be where equal bits are not promised."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.client.source_files import picture_format
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from PIL import Image

LEAST_SHARE = 0.999
"""Of the pixels that must be within 1/255 in fp32; what the engine promises in company (docs/engine.md)."""

LEAST_DB = {"float16": 48.0, "bfloat16": 34.0}
"""PSNR between two pictures: 6 dB below what either keeps to diffusers' fp32 picture (docs/engine.md)."""

LOSSY_DB = 34.0
"""PSNR where a picture was kept as jpeg or webp, whatever the dtype."""

MOST_PIXELS = 1 << 24


@dataclass(frozen=True)
class Closeness:
    """``share`` of the pixels are within 1/255 in every channel; ``psnr`` in dB, inf: equal pixels."""

    share: float
    psnr: float
    within: bool
    promise: str

    def __str__(self) -> str:
        return (
            f"{100 * self.share:.3f} % of the pixels are within 1/255, PSNR {self.psnr:.1f} dB;"
            f" {self.promise} is the tolerance"
        )


def compare(kept: bytes, drawn: bytes, dtypes: set[str]) -> Closeness:
    """Compares two files of the same size in pixels; ``dtypes`` are those that the two were drawn in.

    Raises MarqueeError where one cannot be opened or the sizes differ.
    """
    from PIL import ImageChops

    then, now = opened(kept), opened(drawn)
    if then.size != now.size:
        raise MarqueeError(
            f"the kept picture is {then.width}x{then.height}, the one drawn again {now.width}x{now.height}",
            "give the picture that the receipt came with",
        )
    difference = ImageChops.difference(then, now)
    red, green, blue = difference.split()
    worst = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    pixels = then.width * then.height
    share = (worst[0] + worst[1]) / pixels
    squares = sum(count * (value % 256) ** 2 for value, count in enumerate(difference.histogram()))
    psnr = 10 * math.log10(255**2 * 3 * pixels / squares) if squares else math.inf
    lossy = {picture_format(kept), picture_format(drawn)} != {"png"}
    if not lossy and dtypes == {"float32"}:
        return Closeness(share, psnr, share >= LEAST_SHARE, f"{100 * LEAST_SHARE:.1f} %")
    least = LOSSY_DB if lossy else min(LEAST_DB.get(dtype, LOSSY_DB) for dtype in dtypes - {"float32"})
    return Closeness(share, psnr, psnr >= least, f"{least:g} dB")


def pixels_digest(data: bytes) -> str:
    """The ``pixels_sha256`` of a receipt (handler/contract/receipt.py); of a lossless file alone."""
    image = opened(data)
    digest = hashlib.sha256(f"{image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def opened(data: bytes) -> Image.Image:
    """The picture in RGB. Raises MarqueeError where it cannot be opened."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("png", "jpeg", "webp")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise MarqueeError(f"a picture of {image.width}x{image.height} is not opened")
            converted: Image.Image = image.convert("RGB")
            return converted
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise MarqueeError("the kept picture is broken", "give the picture as it came") from error
