"""``build --compile``: the archive's own code compiles its UNet for this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.archive.layout import COMPILED_FOLDER, Member, file_member
from pipeline.archive.writer import write_archive
from pipeline.environment import read_environment
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

LAST_LINES = 5


@contextmanager
def compiled_members(members: Sequence[Member], beside: Path, progress: Progress) -> Iterator[list[Member]]:
    """The members of compiled/, made from an unpacked copy of the archive; they last as long as the block.

    Raises MarqueeError with the compiler's last lines. Compiled code fits one torch, processor and dtype: an
    archive that carries it is no longer the same bytes on every machine.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".compile-", dir=beside) as name:
        folder = Path(name)
        write_archive(folder / "plain.mar", members, progress)
        root = folder / "unpacked"
        with zipfile.ZipFile(folder / "plain.mar") as archive:
            archive.extractall(root)
        (folder / "plain.mar").unlink()
        progress.note("compiling the UNet for this machine; this takes a minute or more")
        _compile(root)
        files = sorted((root / COMPILED_FOLDER).iterdir())
        yield [file_member(f"{COMPILED_FOLDER}/{path.name}", path) for path in files]


def _compile(root: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "handler.engine.accelerate.compile_unet", str(root)]
    as_served = {"GOMP_SPINCOUNT": "10000"}
    environment = {**read_environment().variables, **as_served, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()[-LAST_LINES:]
        raise MarqueeError(
            "the UNet does not compile here: " + " | ".join(lines),
            cure="install a C++ compiler (g++), or build without --compile",
        )
