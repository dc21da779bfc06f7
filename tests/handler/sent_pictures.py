"""Pictures as a request sends them, for tests."""

from __future__ import annotations

import base64
import io

from PIL import Image


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file_of(image: Image.Image, format_name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def slope(width: int = 64, height: int = 64) -> Image.Image:
    """Three channels that all differ."""
    image = Image.linear_gradient("L").resize((width, height))
    edge = image.point(lambda value: 255 * (value > 90))
    return Image.merge("RGB", (image, edge, image.rotate(90).resize(image.size)))


def right_half(width: int = 64, height: int = 64) -> Image.Image:
    """A mask that is white in the right half."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 2, 0, width, height))
    return mask


def sent(image: Image.Image) -> str:
    """The base64 of the picture as png."""
    return coded(file_of(image, "png"))
