"""A picture as the bytes of an image file. Torch-free."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from handler.contract.picture_metadata import EXIF_IFD, PNG_KEY, USER_COMMENT, user_comment

if TYPE_CHECKING:
    from PIL import Image


def encode(image: Image.Image, output_format: str, quality: int, parameters: str | None = None) -> bytes:
    """The image file; ``quality``, 1 to 100, counts for jpeg and webp, png is lossless.

    ``parameters`` is the text that the file carries (``handler.contract.picture_metadata``); None: no text.
    """
    file = io.BytesIO()
    options: dict[str, Any] = {} if output_format == "png" else {"quality": quality}
    if parameters is not None:
        options.update(_png_text(parameters) if output_format == "png" else _exif(parameters))
    image.save(file, output_format.upper(), **options)
    return file.getvalue()


def _png_text(text: str) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(PNG_KEY, text)
    return {"pnginfo": info}


def _exif(text: str) -> dict[str, Any]:
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = user_comment(text)
    return {"exif": exif.tobytes()}
