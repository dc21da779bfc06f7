"""An archive with compiled code, kept in build/ from one run of the tests to the next."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "compiled-for-tests"


def kept_archive(name: str, config: str, make: Callable[[Path], None], own: Path) -> Path:
    """A copy in ``own`` of the model.mar that ``make(own)`` writes; kept until it would differ."""
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{name}-{_digest(config)}.mar"
    with FileLock(KEPT / "lock"):
        if not kept.exists():
            make(own)
            for old in KEPT.glob(f"{name}-*.mar*"):
                old.unlink()
            shutil.copyfile(own / "model.mar", f"{kept}.part")
            Path(f"{kept}.part").rename(kept)
        shutil.copyfile(kept, own / "model.mar")
    return own / "model.mar"


def _digest(config: str) -> str:
    """Of the code that builds and is shipped, the model, torch, the compiler and the processor."""
    digest = hashlib.sha256(config.encode())
    for path in sorted(_sources()):
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=False).stdout
    for fact in (torch.__version__, platform.python_version(), compiler, _processor()):
        digest.update(f"{fact}\n".encode())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    for folder in ("handler", "pipeline/archive", "pipeline/containers", "model_artifacts/shapes"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
    yield ROOT / "constraints.txt"
    yield ROOT / "tests" / "engine" / "narrow.py"


def _processor() -> str:
    """Model and instruction sets, as Linux names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
