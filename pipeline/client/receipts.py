"""Receipts on the disk: in JSON, alone or in an answer, and in the metadata of a picture."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.client.source_files import picture_format
from pipeline.errors import MarqueeError

MOST_BYTES = 64 << 20
"""An answer with its pictures; no server of ours sends more (max_response_bytes)."""
CURE = "give a receipt (marquee predict --receipt), a full answer, or a picture drawn with --metadata"

# handler/contract/picture_metadata.py writes these.
PNG_KEY, EXIF_IFD, USER_COMMENT, UNICODE = "parameters", 0x8769, 0x9286, b"UNICODE\0"
OURS = re.compile(r', marquee: ("(?:\\.|[^\\"])*")$')


@dataclass(frozen=True)
class Kept:
    """A receipt; ``name`` is how messages call it, ``picture`` the file that was kept with it, if any."""

    name: str
    receipt: Mapping[str, Any]
    picture: bytes | None = field(default=None, repr=False)


def read_receipts(path: Path) -> list[Kept]:
    """All receipts of a file, in order, at least one.

    The file is a picture with marquee's metadata, or JSON: a receipt, a list of receipts, a prediction or an
    answer of ``response: "full"``. Raises MarqueeError where it cannot be read or holds no receipt.
    """
    content = _read(path)
    if picture_format(content) is not None:
        return [Kept(str(path), _in_picture(path, content), content)]
    try:
        found = list(_in_document(json.loads(content)))
    except (ValueError, RecursionError) as error:
        raise MarqueeError(f"{path} is neither JSON nor a png, jpeg or webp picture", CURE) from error
    if not found:
        raise MarqueeError(f"{path} holds no receipt", CURE)
    names = [str(path)] if len(found) == 1 else [f"{path}, receipt {n}" for n in range(1, len(found) + 1)]
    return [Kept(name, *one) for name, one in zip(names, found, strict=True)]


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise MarqueeError(f"{path} is no file", "name the receipt's file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MarqueeError(f"the receipt {path} cannot be read: {reason}", "name its file") from error
    if len(content) > MOST_BYTES:
        raise MarqueeError(f"{path} has more than {MOST_BYTES:,} bytes, which is no receipt", CURE)
    return content


def _in_document(document: Any) -> Iterator[tuple[Mapping[str, Any], bytes | None]]:
    if isinstance(document, list):
        for one in document:
            yield from _in_document(one)
    if not isinstance(document, dict):
        return
    if isinstance(document.get("settings"), dict) and "seed" in document:
        yield document, None
    elif isinstance(document.get("predictions"), list):
        yield from _in_document(document["predictions"])
    else:
        receipts = document.get("receipts", [document.get("receipt")])
        images = document.get("images", [document.get("image")])
        if isinstance(receipts, list):
            told = images if isinstance(images, list) else []
            padded = [*told, *[None] * len(receipts)]
            for receipt, image in zip(receipts, padded, strict=False):
                yield from ((one, _decoded(image)) for one, _ in _in_document(receipt))


def _decoded(image: Any) -> bytes | None:
    try:
        data = base64.b64decode(image, validate=True) if isinstance(image, str) else b""
    except ValueError:
        return None
    return data if picture_format(data) else None


def _in_picture(path: Path, content: bytes) -> Mapping[str, Any]:
    """The receipt in the text that other programs call ``parameters``."""
    text = parameters_text(content)
    found = OURS.search(text or "")
    try:
        receipt = json.loads(json.loads(found.group(1))) if found else None
    except (ValueError, RecursionError):
        receipt = None
    if not isinstance(receipt, dict) or not isinstance(receipt.get("settings"), dict):
        what = "the settings of another program, but no receipt" if text else "no receipt in its metadata"
        raise MarqueeError(f"the picture {path} holds {what}", CURE)
    return receipt


def parameters_text(content: bytes) -> str | None:
    """The text of the key ``parameters`` of a PNG, or of EXIF's UserComment of a JPEG or WebP."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("png", "jpeg", "webp")) as image:
            if isinstance(text := image.info.get(PNG_KEY), str):
                return text
            comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    # What Pillow raises for files that are broken further inside; decompression bombs among them.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, Image.DecompressionBombError):
        return None
    if isinstance(comment, bytes) and comment.startswith(UNICODE):
        return comment[len(UNICODE) :].decode("utf-16-be", "replace")
    return None
