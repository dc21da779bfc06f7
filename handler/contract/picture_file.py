"""What a picture's file says of itself before a pixel of it is decoded: its format, size and orientation.

A file is read here by plain rules of its format, in a time that its length bounds. What Pillow gets to read
is the picture without its metadata: texts that unpack to gigabytes and colour profiles never reach it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

FORMATS = ("png", "jpeg", "webp")

MOST_PARTS = 20_000
"""The most chunks or segments of a file; a picture of 4.5 MB has hundreds."""

MOST_SCANS = 64
"""The most passes of a progressive JPEG, each over the whole picture; common encoders make about ten."""

OTHERS: Mapping[bytes, str] = {
    b"GIF8": "a gif picture",
    b"BM": "a bmp picture",
    b"II*\0": "a tiff picture",
    b"MM\0*": "a tiff picture",
    b"\0\0\1\0": "an icon",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP": "a jpeg 2000 picture",
    b"\xff\x0a": "a jpeg xl picture",
    b"\0\0\0\x0cJXL": "a jpeg xl picture",
    b"%PDF": "a pdf document",
    b"PK": "a zip archive",
    b"\x1f\x8b": "a gzip file",
    b"\x80": "a pickle",
    b"<": "svg, html or other markup",
}
"""What people send by mistake, by how it begins."""


class PictureFileError(ValueError):
    """A file that is no picture we take. The message follows the field's name: "is an animated png"."""


class PictureFile(NamedTuple):
    """A file whose structure is whole.

    ``width`` and ``height`` are pixels, before ``orientation`` (Exif, 1 to 8) is applied. ``plain`` is the
    file without metadata.
    """

    format: str
    width: int
    height: int
    orientation: int
    plain: bytes


class _Size(NamedTuple):
    width: int
    height: int


def examine(data: bytes) -> PictureFile:
    """Raises PictureFileError for another format, an animation, and a file that is cut off or broken."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            found = _png(data)
        elif data.startswith(b"\xff\xd8\xff"):
            found = _jpeg(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            found = _webp(data)
        else:
            raise PictureFileError(f"is {_other(data)}")
    except (struct.error, IndexError) as error:
        raise PictureFileError("is a picture that is cut off or broken") from error
    if not (found.width and found.height):
        raise PictureFileError("is a picture without pixels")
    return found


def _other(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "an avif or heic picture, or a video"
    for start, kind in OTHERS.items():
        if data.startswith(start):
            return kind
    return "text" if data[:64].isascii() and data[:64].decode("ascii").isprintable() else "no picture"


def _png(data: bytes) -> PictureFile:
    """PNG, third edition: a chunk is its length, its name, its data and a checksum."""
    size, orientation = _Size(0, 0), 1
    kept = [data[:8]]
    for name, start, end in _png_chunks(data):
        if name in (b"acTL", b"fcTL", b"fdAT"):
            raise PictureFileError("is an animated png")
        if name == b"IHDR":
            size = _Size(*struct.unpack_from(">II", data, start + 8))
        if name == b"eXIf":
            orientation = _orientation(data[start + 8 : end - 4])
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[start:end])
    if kept[1][4:8] != b"IHDR":
        raise PictureFileError("is a png that is broken")
    return PictureFile("png", *size, orientation, b"".join(kept))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk, to the one that ends the picture."""
    start = 8
    for _ in range(MOST_PARTS):
        (length,) = struct.unpack_from(">I", data, start)
        name, end = data[start + 4 : start + 8], start + length + 12
        if end > len(data):
            raise PictureFileError("is a png that is cut off")
        yield name, start, end
        if name == b"IEND":
            return
        start = end
    raise PictureFileError("is a png of far too many chunks")


def _jpeg(data: bytes) -> PictureFile:
    """ITU T.81, annex B: segments up to the first scan, then coded data in which FF is followed by 00."""
    size, orientation = _Size(0, 0), 1
    kept = [data[:2]]
    scan = len(data)
    for marker, start, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, start + 5)
            size = _Size(width, height)
        if marker == 0xE1 and data.startswith(b"Exif\0\0", start + 4):
            orientation = _orientation(data[start + 4 : end])
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[start:end])  # JFIF's and Adobe's segments say how colours are coded
        scan = end
    if data.count(b"\xff\xda", scan) >= MOST_SCANS:
        raise PictureFileError("is a jpeg of far too many scans")
    if data.find(b"\xff\xd9", scan) < 0:
        raise PictureFileError("is a jpeg that is cut off")
    return PictureFile("jpeg", *size, orientation, b"".join([*kept, data[scan:]]))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment, to the header of the first scan."""
    start = 2
    for _ in range(MOST_PARTS):
        while data[start : start + 2] == b"\xff\xff":
            start += 1
        if data[start] != 0xFF or 0xD0 <= data[start + 1] <= 0xD9:
            raise PictureFileError("is a jpeg that is broken")
        (length,) = struct.unpack_from(">H", data, start + 2)
        end = start + 2 + length
        if length < 2 or end > len(data):
            raise PictureFileError("is a jpeg that is cut off")
        yield data[start + 1], start, end
        if data[start + 1] == 0xDA:
            return
        start = end
    raise PictureFileError("is a jpeg of far too many segments")


def _webp(data: bytes) -> PictureFile:
    """RFC 9649: a RIFF of VP8 (lossy) or VP8L (lossless), with VP8X before them where there is more."""
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise PictureFileError("is a webp that is cut off")
    orientation = 1
    sizes = set()
    for name, start, end in _webp_chunks(data[: length + 8]):
        if name in (b"ANIM", b"ANMF"):
            raise PictureFileError("is an animated webp")
        if name == b"EXIF":
            orientation = _orientation(data[start:end])
        if name in WEBP_SIZES:
            sizes.add(WEBP_SIZES[name](data[start:end]))
    if len(sizes) != 1:
        raise PictureFileError("is a webp that is broken")
    return PictureFile("webp", *sizes.pop(), orientation, data[: length + 8])


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, and start and end of the content of each chunk."""
    start = 12
    for _ in range(MOST_PARTS):
        if start >= len(data):
            return
        name, length = struct.unpack_from("<4sI", data, start)
        end = start + 8 + length
        if end > len(data):
            raise PictureFileError("is a webp that is cut off")
        yield name, start + 8, end
        start = end + length % 2
    raise PictureFileError("is a webp of far too many chunks")


def _vp8(content: bytes) -> _Size:
    if content[3:6] != b"\x9d\x01\x2a":
        raise PictureFileError("is a webp that is broken")
    width, height = struct.unpack_from("<HH", content, 6)
    return _Size(width & 0x3FFF, height & 0x3FFF)


def _vp8l(content: bytes) -> _Size:
    signature, bits = struct.unpack_from("<BI", content)
    if signature != 0x2F:
        raise PictureFileError("is a webp that is broken")
    return _Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)


def _vp8x(content: bytes) -> _Size:
    flags, *sides = struct.unpack_from("<B3xHBHB", content)
    if flags & 2:
        raise PictureFileError("is an animated webp")
    low_width, high_width, low_height, high_height = sides
    return _Size((high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1)


WEBP_SIZES = {b"VP8 ": _vp8, b"VP8L": _vp8l, b"VP8X": _vp8x}


def _orientation(exif: bytes) -> int:
    """Exif 2.3, tag 0x0112 of the first directory; 1, upright, where it is not said or not readable."""
    exif = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, directory + 2 + 12 * entry)
            if (tag, kind) == (0x0112, 3):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
