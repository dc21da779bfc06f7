"""The real command, run from the repository, and a way to spoil its inputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
