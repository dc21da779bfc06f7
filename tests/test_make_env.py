"""scripts/make_env.sh after a first run that was interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose setup.cfg pins a torch that no index has: the script ends where it would download."""
    (tmp_path / "setup.cfg").write_text("[options]\ninstall_requires =\n    torch==0.0.0\n")
    (tmp_path / "constraints.txt").touch()
    return tmp_path


def make_env(project: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"}
    command = ["sh", str(ROOT / "scripts" / "make_env.sh"), ".venv"]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_an_environment_without_pip_is_made_anew_and_a_whole_one_kept(project: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    left_over = project / ".venv" / "left over"
    left_over.touch()
    assert "No module named pip" not in make_env(project).stderr
    subprocess.run([project / ".venv" / "bin" / "python", "-m", "pip", "--version"], check=True)
    assert not left_over.exists()
    left_over.touch()
    assert "torch==0.0.0" in make_env(project).stderr
    assert left_over.exists()
