"""Bytecode for the packages inside an archive, made by a Python of the container's own version."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.archive.layout import PACKAGES_FOLDER, Member, bytes_member
from pipeline.archive.target.targets import Target
from pipeline.errors import MarqueeError

COMPILE_TIMEOUT_SECONDS = 600


def bytecode_members(members: Sequence[Member], target: Target, python: Path) -> list[Member]:
    """A .pyc member per .py member that compiles; raises MarqueeError for a Python of another version.

    They are not checked against their sources when imported: unpacking changes dates, and the archive's own
    digests already tie both together.
    """
    _check_version(python, target)
    with tempfile.TemporaryDirectory(prefix="marquee-bytecode-") as name:
        root = Path(name)
        for member in members:
            if member.path.endswith(".py"):
                path = root / member.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"".join(member.chunks()))
        # -s and -p: tracebacks name the path in the archive, not this temporary folder.
        command = [
            str(python),
            "-m",
            "compileall",
            "-qq",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            str(root),
        ]
        subprocess.run([*command, str(root / PACKAGES_FOLDER)], check=False, timeout=COMPILE_TIMEOUT_SECONDS)
        return [
            bytes_member(path.relative_to(root).as_posix(), path.read_bytes())
            for path in sorted(root.rglob("*.pyc"))
        ]


def _check_version(python: Path, target: Target) -> None:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MarqueeError(f"{python} cannot be run as Python: {error}") from error
    if answer.stdout.strip() != target.python:
        raise MarqueeError(f"{python} is Python {answer.stdout.strip()}; {target.name} has {target.python}")
