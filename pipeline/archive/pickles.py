"""What can run code when it is loaded, known by its name and its content; nothing of it is run for that."""

from __future__ import annotations

import pickletools
import re
from pathlib import PurePosixPath

from pipeline.archive.layout import (
    COMPILED_LIBRARY,
    COMPILED_UNET,
    MODEL_FOLDER,
    PACKAGES_FOLDER,
    PICKLE_SUFFIXES,
)

# Other containers of pickles: joblib's and NumPy's files, torch.export's and torch.package's archives.
HIDING_SUFFIXES = (".joblib", ".dill", ".npy", ".npz", ".pt2", ".ptc", ".gz", ".bz2", ".xz", ".z", ".zip")
MODEL_SUFFIXES = (".json", ".txt", ".safetensors", ".model")
PROTOCOLS = range(2, 6)
LIBRARY_NAME = re.compile(r"\.so(\.\d+)*$", re.IGNORECASE)
ELF = b"\x7fELF"
MAGICS = {
    b"PK\x03\x04": "a pickle",  # what torch.save writes
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x93NUMPY": "a NumPy array",
}
SAFETENSORS_BRACE = 8  # where a safetensors header's "{" stands


def name_problem(name: str) -> str:
    """Why a path may not be in an archive by its suffix; empty where it may."""
    if name == COMPILED_UNET:
        return ""
    if name.lower().endswith((*PICKLE_SUFFIXES, *HIDING_SUFFIXES)):
        return "is a pickle by its name, which can run any code when loaded"
    if name.startswith(f"{MODEL_FOLDER}/") and not name.endswith((*MODEL_SUFFIXES, "/")):
        suffix = PurePosixPath(name).suffix or "no suffix"
        return f"is no file of a model by its name ({suffix}; {', '.join(MODEL_SUFFIXES)} are)"
    if LIBRARY_NAME.search(name) and not _may_be_native(name):
        return f"is a shared library by its name; they belong into {PACKAGES_FOLDER}/ or {COMPILED_LIBRARY}"
    return ""


def content_problem(name: str, size: int, first: bytes) -> str:
    """Why a file may not be served by its ``first`` bytes (all of them, for a small one)."""
    if name.endswith(".safetensors"):  # whose length field may look like a pickle's first bytes
        is_header = first[SAFETENSORS_BRACE : SAFETENSORS_BRACE + 1] == b"{"
        kind = "" if is_header else "a pickle"
    elif first.startswith(ELF):
        place = f"{PACKAGES_FOLDER}/ or {COMPILED_LIBRARY}"
        return "" if _may_be_native(name) else f"is machine code by its content; it belongs into {place}"
    elif name == COMPILED_UNET:  # AOTInductor's zip of compiled code: no pickle inside
        kind = ""
    elif _is_pickle(first, whole=len(first) == size):
        kind = "a pickle"
    else:
        kind = next((kind for magic, kind in MAGICS.items() if first.startswith(magic)), "")
    if not kind:
        return ""
    held = "" if kind == "a pickle" else " or hold a pickle that does"
    return f"is {kind} by its content, which can run any code when loaded{held}"


def _may_be_native(name: str) -> bool:
    return name == COMPILED_LIBRARY or name.startswith(f"{PACKAGES_FOLDER}/")


def _is_pickle(first: bytes, *, whole: bool) -> bool:
    if first[:1] == b"\x80" and len(first) > 1 and first[1] in PROTOCOLS:
        return True
    # Protocols 0 and 1 have no mark: a pickle is what reads as one to its very end.
    content = first.rstrip()
    if not whole or not content.endswith(b"."):
        return False
    try:
        *_, (_, _, stop) = pickletools.genops(content)
    except (ValueError, OverflowError, MemoryError):
        return False
    return stop == len(content) - 1
