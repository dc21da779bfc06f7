"""The twin: the Python it is made with, when it is complete, and that replicas run in it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.archive.target.targets import find_target
from pipeline.containers.python39 import find_python39
from pipeline.containers.twin import Twin, find_twin, rehearsed_in, start_torchserve
from pipeline.errors import MarqueeError

ROOT = Path(__file__).resolve().parents[2]
SHIM = "echo \"pyenv: python3.9: command not found\" >&2; echo '  3.9.18' >&2; exit 127"
WORKS = "echo 3.9"


def program(path: Path, script: str) -> Path:
    """An executable that stands for a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_inactive_shim_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "shims" / "python3.9", SHIM)
    works = program(tmp_path / "later" / "python3.9", WORKS)
    environment = {"PATH": f"{tmp_path / 'shims'}:{tmp_path / 'later'}", "HOME": str(tmp_path)}
    assert find_python39(None, environment) == works


def test_the_pyenv_of_a_shim_is_looked_at_where_home_has_none(tmp_path: Path) -> None:
    program(tmp_path / "pyenv" / "shims" / "python3.9", SHIM)
    works = program(tmp_path / "pyenv" / "versions" / "3.9.18" / "bin" / "python3.9", WORKS)
    environment = {"PATH": str(tmp_path / "pyenv" / "shims"), "HOME": str(tmp_path / "home")}
    assert find_python39(None, environment) == works


def test_pyenvs_newest_is_taken_where_the_path_has_none(tmp_path: Path) -> None:
    for version in ("3.9.9", "3.9.18", "3.10.1"):
        newest = program(tmp_path / ".pyenv" / "versions" / version / "bin" / "python3.9", WORKS)
    newest = tmp_path / ".pyenv" / "versions" / "3.9.18" / "bin" / "python3.9"
    assert find_python39(None, {"PATH": "", "HOME": str(tmp_path)}) == newest


def test_everything_that_was_tried_is_told(tmp_path: Path) -> None:
    shim = program(tmp_path / "a" / "python3.9", SHIM)
    other = program(tmp_path / "b" / "python3.9", "echo 3.8")
    broken = tmp_path / "c" / "python3.9"
    broken.parent.mkdir()
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o700)
    path = ":".join(str(each.parent) for each in (shim, other, broken))
    with pytest.raises(MarqueeError) as raised:
        find_python39(None, {"PATH": path, "HOME": str(tmp_path)})
    assert f"{shim}: ended with 127: pyenv: python3.9: command not found" in str(raised.value)
    assert f"{other}: is Python 3.8" in str(raised.value)
    assert f"{broken}: Exec format error" in str(raised.value)
    assert "PYTHON39" in str(raised.value.cure)


def test_a_named_python_is_taken_alone(tmp_path: Path) -> None:
    works = program(tmp_path / "works", WORKS)
    program(tmp_path / "python3.9", WORKS)
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHON39": "/nowhere/python"}
    assert find_python39(works, environment) == works
    assert find_python39(Path("works"), environment) == works
    with pytest.raises(MarqueeError, match=r"PYTHON39 names no .*\n.*/nowhere/python: No such file"):
        find_python39(None, environment)


def test_the_command_says_what_it_tried_and_makes_nothing(tmp_path: Path) -> None:
    shim = program(tmp_path / "bin" / "python3.9", SHIM)
    environment = {
        "PATH": f"{shim.parent}:{os.defpath}",
        "HOME": str(tmp_path),
        "MARQUEE_REHEARSAL": str(tmp_path / "rehearsal"),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", "rehearse"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: no Python 3.9 that runs was found")
    assert f"{shim}: ended with 127" in ran.stderr
    assert not (tmp_path / "rehearsal").exists()


def test_a_twin_counts_once_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_REHEARSAL", str(tmp_path))
    target = find_target("vertex-pytorch-gpu-2-4")
    assert rehearsed_in(target).startswith("rehearsed with this machine's packages (Python 3.")
    assert "marquee rehearse" in rehearsed_in(target)
    program(tmp_path / "py39" / "bin" / "python", WORKS)
    for version in ("0.7.0", "0.12.0", "0.13.0.partial"):
        (tmp_path / f"torchserve-{version}").mkdir()
    assert find_twin(target) is None
    (tmp_path / "twin.json").write_text(json.dumps({"description": "Python 3.9.18, torch 2.4.1"}))
    assert rehearsed_in(target) == "rehearsed in the twin (Python 3.9.18, torch 2.4.1, TorchServe 0.12.0)"
    for other in ("vertex-pytorch-gpu-2-3", "marquee"):
        assert find_twin(find_target(other)) is None
    assert find_twin(None) is None


def test_the_rehearsals_server_loads_nothing_but_its_archive(tmp_path: Path) -> None:
    twin = Twin(program(tmp_path / "python", "exit 0"), {"0.12.0": tmp_path}, "a stand-in")
    process, _ = start_torchserve(twin, "0.12.0", tmp_path, tmp_path / "server")
    process.wait()
    written = (tmp_path / "server" / "config.properties").read_text().splitlines()
    assert "allowed_urls=none" in written
