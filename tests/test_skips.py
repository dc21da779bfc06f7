"""The rules of tests/conftest.py for tests that are skipped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SKIPPING = """
import pytest

def test_without_hadolint():
    pytest.skip("hadolint is not installed")

@pytest.mark.soak
def test_for_hours():
    pass
"""


@pytest.mark.parametrize(
    ("options", "closing"),
    [
        ([], "2 skipped"),
        (["--forbid-skips"], "1 failed, 1 skipped"),
        (["--forbid-skips", "--may-skip=mount"], "1 failed, 1 skipped"),
        (["--forbid-skips", "--may-skip=mount", "--may-skip=hadolint"], "2 skipped"),
        (["--forbid-skips", "--soak"], "1 failed, 1 passed"),
    ],
)
def test_only_what_is_named_or_soak_may_be_skipped(tmp_path: Path, options: list[str], closing: str) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    soak: long\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-rs", *options, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert re.search(rf"{closing} in ", done.stdout), done.stdout + done.stderr
    if not options:
        assert "make soak" in done.stdout
