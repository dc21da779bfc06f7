"""The archive that deploy builds by itself: built once and after a change; no other file is replaced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.archive.build import EMBEDDED_MODEL
from pipeline.containers.fit import misfits, read_contents
from pipeline.containers.kept_archive import archive_for
from pipeline.progress import Silent

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = "marquee"  # its packages are in the image, so that nothing is downloaded


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with nothing built in it, where the commands run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / EMBEDDED_MODEL, tmp_path / EMBEDDED_MODEL)
    shutil.copy(ROOT / "model_artifacts" / "model-config.yaml", tmp_path / "model_artifacts")
    return tmp_path


def test_it_is_built_for_its_container_and_only_after_a_change(root: Path) -> None:
    first = archive_for(CONTAINER, Silent())
    assert read_contents(first).container == CONTAINER
    assert misfits(read_contents(first), "us-central1-docker.pkg.dev/me/i/marquee:t4", CONTAINER) == []
    os.utime(first, (1, 1))
    assert archive_for(CONTAINER, Silent()) == first
    assert first.stat().st_mtime == 1
    settings = root / "model_artifacts" / "model-config.yaml"
    settings.write_text(settings.read_text().replace("num_inference_steps: 15", "num_inference_steps: 14"))
    second = archive_for(CONTAINER, Silent())
    assert second != first
    assert first.is_file(), "a command that is still uploading it could not read on"
    settings.write_text(settings.read_text().replace("num_inference_steps: 14", "num_inference_steps: 13"))
    third = archive_for(CONTAINER, Silent())
    assert sorted(first.parent.glob("*.mar")) == sorted([second, third])


def test_a_damaged_one_is_built_again_and_the_users_stay(root: Path) -> None:
    first = archive_for(CONTAINER, Silent())
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    theirs = first.with_name("model.mar")
    theirs.write_bytes(b"theirs")
    (root / "model_artifacts" / "model.mar").write_bytes(b"theirs, too")
    assert archive_for(CONTAINER, Silent()) == first
    assert first.read_bytes() == content
    assert theirs.read_bytes() == b"theirs"
    assert (root / "model_artifacts" / "model.mar").read_bytes() == b"theirs, too"
    assert {path.name for path in first.parent.iterdir()} == {first.name, "model.mar", "built.json", "lock"}


@pytest.mark.usefixtures("root")
def test_containers_do_not_share_one() -> None:
    assert archive_for(None, Silent()) != archive_for(CONTAINER, Silent())
