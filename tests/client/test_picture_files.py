"""Pictures on the disk: all of them whole, or none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipeline.client import Prediction
from pipeline.client.picture_files import save_pictures


def test_nothing_changes_when_one_cannot_be_written(tmp_path: Path) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(b"before")
    with pytest.raises(OSError, match="No such file"):
        save_pictures([(old, b"after"), (tmp_path / "new.png", b"new"), (tmp_path / "gone" / "x.png", b"x")])
    assert old.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["old.png"]


def test_a_full_device_leaves_the_other_pictures_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        save_pictures([(tmp_path / "one.png", b"one"), (Path("/dev/full"), b"x")])
    assert not os.listdir(tmp_path)


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"before")
    target.chmod(0o640)
    link.symlink_to(target)
    Prediction(b"after", "png", 1, 1).save(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"after"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    Prediction(b"x", "png", 1, 1).save(tmp_path / "new.png")
    assert (tmp_path / "new.png").stat().st_mode == (tmp_path / "usual").stat().st_mode
