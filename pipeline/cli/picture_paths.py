"""Where pictures are written, checked before the first one is asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import MarqueeError

FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}


def default_output(wanted: str | None) -> Path:
    """picture.jpg, or with the suffix of the format that is wanted. Raises MarqueeError for no format."""
    for suffix, name in FORMATS.items():
        if name == (wanted or "jpeg"):
            return Path(f"picture{suffix}")
    raise MarqueeError(f"--format {wanted}: pictures are jpeg, png or webp")


def format_for(output: Path, wanted: str | None) -> str | None:
    """The format to ask the server for, so that it fits the file's name. Raises MarqueeError."""
    named = FORMATS.get(output.suffix.lower())
    if output.suffix and named is None:
        raise MarqueeError(f"-o {output}: pictures are written as {', '.join(FORMATS)}")
    if wanted is not None and named is not None and wanted != named:
        raise MarqueeError(
            f"--format {wanted} does not fit -o {output}", f"leave --format out, or rename {output}"
        )
    return wanted or named


def output_paths(output: Path, count: int) -> list[Path]:
    """The file of each picture, checked now, because a picture may take minutes to draw."""
    numbers = [""] if count == 1 else [f"-{number}" for number in range(1, count + 1)]
    if output.is_dir():
        raise MarqueeError(f"-o {output} is a folder", f"name a file in it: -o {output / 'picture.jpg'}")
    paths = [output.with_name(f"{output.stem}{number}{output.suffix}") for number in numbers]
    for path in paths:
        check_output("-o", path)
    return paths


def check_output(option: str, path: Path) -> None:
    """Raises MarqueeError where the file that ``option`` names cannot be written."""
    if path.is_dir():
        raise MarqueeError(f"{option} {path} is a folder", "name a file in it")
    if not path.parent.is_dir():
        raise MarqueeError(f"{option} {path}: there is no folder {path.parent}", f"mkdir -p {path.parent}")
    try:
        if path.exists():
            writable = os.access(path, os.W_OK)
        else:  # a read-only disk shows only when something is written
            with tempfile.TemporaryFile(dir=path.parent):
                writable = True
    except (OSError, ValueError) as error:
        raise _unwritable(option, path, error) from error
    if not writable:
        raise MarqueeError(f"{option} {path} is there and may not be overwritten", "name another file")


def save(paths: Sequence[Path], contents: Sequence[bytes]) -> None:
    """All files, or none where one cannot be written."""
    from pipeline.client.picture_files import save_pictures

    try:
        save_pictures(list(zip(paths, contents, strict=True)))
    except OSError as error:
        raise _unwritable("-o", paths[0] if len(paths) == 1 else paths[0].parent, error) from error


def _unwritable(option: str, path: Path, error: OSError | ValueError) -> MarqueeError:
    reason = getattr(error, "strerror", None) or str(error)
    return MarqueeError(f"{option} {path} cannot be written: {reason}", f"name another place with {option}")
