"""Work folders of servers that were killed are removed at the next start, and nobody else's."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import MarqueeError
from pipeline.serving.work_folder import make_work_folder, sweep_work_folders

OWNER = (
    "import sys, tempfile, time; tempfile.tempdir = sys.argv[1];"
    "from pipeline.serving.work_folder import make_work_folder;"
    "folder = make_work_folder(); (folder.path / 'logs').mkdir();"
    "print(folder.path, flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def owner(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a work folder of its own."""
    command = [sys.executable, "-c", OWNER, str(temporary)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_killed_owners_folder_goes_and_a_living_ones_stays(
    owner: tuple[subprocess.Popen[str], Path],
) -> None:
    process, folder = owner
    mine = make_work_folder()
    assert sweep_work_folders() == []
    process.kill()
    process.wait()
    assert sweep_work_folders() == [folder]
    assert not folder.exists()
    assert mine.path.exists()
    mine.remove()
    assert not mine.path.exists()
    mine.remove()


def test_what_is_not_a_work_folder_stays(temporary: Path, tmp_path: Path) -> None:
    (temporary / "marquee-notes").mkdir()  # somebody's own, without an owner's lock
    (temporary / "marquee-file").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner.lock").write_text("")
    (temporary / "marquee-link").symlink_to(elsewhere)
    linked = temporary / "marquee-linked"
    linked.mkdir()
    (linked / "owner.lock").symlink_to(elsewhere / "owner.lock")
    assert sweep_work_folders() == []
    assert len(list(temporary.iterdir())) == 4
    assert elsewhere.exists()


def test_a_temporary_folder_that_cannot_be_used_is_named(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    with pytest.raises(MarqueeError, match="work folder cannot be made") as caught:
        make_work_folder()
    assert "TMPDIR" in str(caught.value.cure)
