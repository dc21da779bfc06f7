"""A picture that comes with a request: from base64 to the pixels that are drawn from.

Its bytes, and its pixels by its own header, are counted before it is decoded, so a hostile file costs no
more than an honest one. No message of this file repeats any of the text that came.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from handler.contract.job import SourcePicture
from handler.contract.limits import Limits
from handler.contract.picture_file import FORMATS, PictureFile, PictureFileError, examine
from handler.contract.problem import FieldError

if TYPE_CHECKING:
    from PIL import Image

MOST_SIDE = 16_384
"""Pixels; resizing a longer side would take memory that its length squared bounds, not its pixels."""

PICTURES_OF_A_REQUEST = 2
"""A request's pictures together may have this many times the pixels of one: a picture and its mask."""

SPACES = b" \t\r\n"
URL_SAFE = bytes.maketrans(b"-_", b"+/")
DATA_URL = re.compile(r"\s*data:([^,;]{0,100})((?:;[^,;]{0,100}){0,10}),", re.IGNORECASE)
ADDRESS = re.compile(r"\s*(https?|gs|s3|file|ftp|blob):", re.IGNORECASE)
MEDIA_TYPES: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/webp": "webp",
}

TURNS = (
    "FLIP_LEFT_RIGHT",
    "ROTATE_180",
    "FLIP_TOP_BOTTOM",
    "TRANSPOSE",
    "ROTATE_270",
    "TRANSVERSE",
    "ROTATE_90",
)
"""Pillow's names of the turns that Exif's orientations 2 to 8 ask for."""


class PixelBudget:
    """The pixels that the pictures of one request may still have."""

    def __init__(self, limits: Limits) -> None:
        self.most = PICTURES_OF_A_REQUEST * limits.max_image_pixels
        self.left = self.most


@dataclass(frozen=True)
class Picture64:
    """A png, jpeg or webp picture as base64 or as a data: URL; null for none.

    ``mode`` is Pillow's: RGB, or L for a mask. Both alphabets of base64 are taken, blanks and line ends are
    passed over, and padding may be missing.
    """

    mode: str
    limits: Limits
    budget: PixelBudget

    @property
    def allowed(self) -> str:
        """What is allowed, for a message."""
        return (
            f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture as base64 or as a data: URL, of at most"
            f" {self.limits.max_image_bytes} bytes and {self.limits.max_image_pixels} pixels"
        )

    def read(self, name: str, value: Any) -> SourcePicture | None:
        if value is None:
            return None
        try:
            data = self._bytes(value)
            file = examine(data)
            _check_media_type(value, file.format)
            self._check_pixels(file)
            image = _decode(file)
        except PictureFileError as error:
            raise FieldError(self.allowed, f"{name} {error}; it must be {self.allowed}") from error
        self.budget.left -= file.width * file.height
        return SourcePicture(_plain(image, self.mode, file.orientation), hashlib.sha256(data).hexdigest())

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "null"], "contentEncoding": "base64", "minLength": 1}

    def _bytes(self, value: Any) -> bytes:
        """The file that a text holds."""
        if not isinstance(value, str):
            raise PictureFileError("is no text")
        if ADDRESS.match(value):
            raise PictureFileError("is an address, and none is fetched")
        url = DATA_URL.match(value)
        if url is None and value.lstrip()[:5].lower() == "data:":
            raise PictureFileError("is a data: URL that is broken")
        if url and ";base64" not in url[2].lower():
            raise PictureFileError("is a data: URL without ;base64")
        coded = value[url.end() :] if url else value
        if not coded.isascii():
            raise PictureFileError("is no base64")
        return self._decoded(coded.encode("ascii").translate(URL_SAFE, SPACES))

    def _decoded(self, coded: bytes) -> bytes:
        digits = coded.rstrip(b"=")
        most = self.limits.max_image_bytes
        if len(digits) * 3 // 4 > most:
            raise PictureFileError(f"has {len(digits) * 3 // 4} bytes")
        if len(coded) - len(digits) > 2 or len(digits) % 4 == 1:
            raise PictureFileError("is no base64, or base64 that is cut off")
        if not digits:
            raise PictureFileError("is empty")
        try:
            return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
        except ValueError as error:
            raise PictureFileError("is no base64") from error

    def _check_pixels(self, file: PictureFile) -> None:
        pixels, size = file.width * file.height, f"{file.width}x{file.height}"
        if pixels > self.limits.max_image_pixels:
            raise PictureFileError(f"is {size}, {pixels} pixels")
        if max(file.width, file.height) > MOST_SIDE:
            raise PictureFileError(f"is {size}, with a side of more than {MOST_SIDE} pixels")
        if pixels > self.budget.left:
            raise PictureFileError(
                f"is {size}, and the pictures of a request may have {self.budget.most} pixels together"
            )


def resized(picture: SourcePicture, width: int, height: int) -> SourcePicture:
    """The picture in the size that is drawn, by Lanczos as diffusers' ``VaeImageProcessor`` resizes it."""
    from PIL import Image

    if picture.image.size == (width, height):
        return picture
    return replace(picture, image=picture.image.resize((width, height), Image.Resampling.LANCZOS))


def _check_media_type(value: str, came: str) -> None:
    url = DATA_URL.match(value)
    if url is None:
        return
    said = url[1].strip().lower()
    if said not in MEDIA_TYPES:
        raise PictureFileError(f"is a data: URL of another type than {', '.join(MEDIA_TYPES)}")
    if MEDIA_TYPES[said] != came:
        raise PictureFileError(f"is a {came} picture in a data: URL that says {said}")


def _decode(file: PictureFile) -> Image.Image:
    """Every pixel of the file; its own plugin of Pillow alone may look at it."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(file.plain), formats=[file.format])
        if image.size != (file.width, file.height):
            raise PictureFileError(f"is a {file.format} that is broken")
        image.load()
        return image
    # What Pillow's decoders raise for files that are broken further inside.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
        if isinstance(error, PictureFileError):
            raise
        raise PictureFileError(f"is a {file.format} that is cut off or broken") from error


def _plain(image: Image.Image, mode: str, orientation: int) -> Image.Image:
    """Upright, eight bits a channel, over white where it is transparent, and nothing but pixels."""
    from PIL import Image

    if orientation > 1:
        image = image.transpose(Image.Transpose[TURNS[orientation - 2]])
    if image.mode.startswith("I"):
        image = _high_bytes(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(colours, mask=colours.getchannel("A"))
    image = image.convert(mode)
    image.info.clear()
    return image


def _high_bytes(image: Image.Image) -> Image.Image:
    """Sixteen bits of grey as eight, which Pillow's own conversion would cut at 255."""
    from PIL import Image

    stride = len(image.tobytes()) // (image.width * image.height)
    return Image.frombytes("L", image.size, image.tobytes()[1::stride])
