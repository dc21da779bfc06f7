"""The real command, run from the repository, and a way to spoil its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from pipeline.archive.digests import sums_text
from pipeline.archive.layout import SUMS
from pipeline.archive.zip_records import stored_entry

ROOT = Path(__file__).resolve().parents[2]
MARQUEE_TIMEOUT_SECONDS = 240


def marquee(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=MARQUEE_TIMEOUT_SECONDS,
        check=False,
    )


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def read_members(archive: Path) -> dict[str, bytes]:
    """Every file of an archive by its path."""
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_members(path: Path, content: dict[str, bytes], *, fix_sums: bool = False) -> Path:
    """An archive of these files with their own sums, or with new ones that fit."""
    if fix_sums:
        covered = {name: data for name, data in content.items() if name != SUMS}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in covered.items()}
        content = content | {SUMS: sums_text(digests)}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(stored_entry(name, len(data)), data)
    return path
