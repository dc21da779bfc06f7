"""A picture as the bytes of an image file. Torch-free."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def encode(image: Image.Image, output_format: str, quality: int) -> bytes:
    """The image file; ``quality``, 1 to 100, counts for jpeg and webp, png is lossless."""
    file = io.BytesIO()
    if output_format == "png":
        image.save(file, "PNG")
    else:
        image.save(file, output_format.upper(), quality=quality)
    return file.getvalue()
