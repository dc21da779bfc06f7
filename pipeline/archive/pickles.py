"""Finds files that can run code when they are loaded, by name and by content; nothing of them is run."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath

from pipeline.archive.hidden_pickles import hides_pickle, reads_as_pickle
from pipeline.archive.layout import (
    COMPILED_FOLDER,
    COMPILED_LIBRARY,
    COMPILED_UNET,
    MODEL_FOLDER,
    PACKAGES_FOLDER,
    PICKLE_SUFFIXES,
)

# Other containers of pickles: joblib's and NumPy's files, torch.export's and torch.package's archives.
HIDING_SUFFIXES = (".joblib", ".dill", ".npy", ".npz", ".pt2", ".ptc", ".gz", ".bz2", ".xz", ".z", ".zip")
MODEL_SUFFIXES = (".json", ".txt", ".safetensors", ".model")
TEXT_SUFFIXES = (".json", ".yaml", ".txt", ".py", "SHA256SUMS")
PROTOCOLS = range(2, 6)
LIBRARY_NAME = re.compile(r"\.so(\.\d+)*$", re.IGNORECASE)
ELF = b"\x7fELF"
TORCH_SAVE = b"PK\x03\x04"  # what torch.save writes: pickles in a ZIP
MAGICS = {
    TORCH_SAVE: "a pickle",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x93NUMPY": "a NumPy array",
}
MAX_SEARCHED_BYTES = 64 << 20
# Letters, line ends and tabs: everything below a space but these stands in no JSON, YAML, Python or text.
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def name_problem(name: str) -> str:
    """Why the suffix of a path is not allowed in an archive; empty where it is."""
    if name == COMPILED_UNET:
        return ""
    if name.lower().endswith((*PICKLE_SUFFIXES, *HIDING_SUFFIXES)):
        return "is a pickle by its name, which can run any code when loaded"
    if name.startswith(f"{MODEL_FOLDER}/") and not name.endswith((*MODEL_SUFFIXES, "/")):
        suffix = PurePosixPath(name).suffix or "no suffix"
        return f"has a suffix that no file of a model has ({suffix}; {', '.join(MODEL_SUFFIXES)} are)"
    if LIBRARY_NAME.search(name) and not _may_be_native(name):
        return f"is a shared library by its name; they belong into {PACKAGES_FOLDER}/ or {COMPILED_LIBRARY}"
    return ""


def content_problem(name: str, size: int, content: bytes) -> str:
    """Why the content of a file is not allowed; it is whole up to MAX_SEARCHED_BYTES, else its beginning.

    A .safetensors file is judged here only where it is really a pickle; ``tensors_problem`` judges the rest.
    """
    if name.endswith(".safetensors"):  # whose length field may look like a pickle's first bytes
        kind = "a pickle" if reads_as_pickle(content) or content.startswith(TORCH_SAVE) else ""
    elif content.startswith(ELF):
        place = f"{PACKAGES_FOLDER}/ or {COMPILED_LIBRARY}"
        return "" if _may_be_native(name) else f"is machine code by its content; it belongs into {place}"
    elif name == COMPILED_UNET:  # AOTInductor's zip of compiled code: no pickle inside
        kind = ""
    else:
        kind = _kind(content)
    if not kind:
        return _text_problem(name, size, content)
    held = "" if kind == "a pickle" else " or hold a pickle that does"
    return f"is {kind} by its content, which can run any code when loaded{held}"


def _kind(content: bytes) -> str:
    """The kind of code in the content, at its beginning or behind its first lines; empty for none."""
    for magic, kind in MAGICS.items():
        if content.startswith(magic):
            return kind
    if (content[:1] == b"\x80" and content[1:2] and content[1] in PROTOCOLS) or hides_pickle(content):
        return "a pickle"
    return ""


def _text_problem(name: str, size: int, content: bytes) -> str:
    """Why a file outside packages/ and compiled/ is not a text of the kind that its suffix names."""
    if name.startswith((f"{PACKAGES_FOLDER}/", f"{COMPILED_FOLDER}/")) or not name.endswith(TEXT_SUFFIXES):
        return ""
    if size > MAX_SEARCHED_BYTES:
        return f"has {size:,} bytes; a text file of an archive has at most {MAX_SEARCHED_BYTES:,}"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not readable text: byte {error.start} is not UTF-8"
    if control := CONTROL.search(content):
        return f"is not readable text: byte {control.start()} is a control character"
    if name.endswith(".json") and (reason := _json_problem(content)):
        return f"is not JSON: {reason}"
    return ""


def _json_problem(content: bytes) -> str:
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        return str(error)[:200]
    return ""


def _may_be_native(name: str) -> bool:
    return name == COMPILED_LIBRARY or name.startswith(f"{PACKAGES_FOLDER}/")
