"""Problems on this machine are reported before the first call to a cloud."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rehearsal_cloud import Configure, RehearsalCloud

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.flow import deploy, plan
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

QUIET = Silent()


def _text(path: Path) -> None:
    path.write_text("no picture")


def _cut_off(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:700])


def _huge(path: Path) -> None:
    Image.new("1", (5_000, 5_000)).save(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a file"),
        (_text, "is not a readable picture"),
        (_cut_off, "right.png"),
        (_huge, "5000x5000"),
    ],
)
def test_an_expected_picture_that_cannot_be_read_stops_before_the_first_call(
    cloud: RehearsalCloud,
    connection: Connection,
    configure: Configure,
    archive: ArchiveFile,
    tmp_path: Path,
    make: Callable[[Path], None],
    says: str,
) -> None:
    expected = tmp_path / "right.png"
    make(expected)
    config = configure(smoke={"seconds": 60, "expected": str(expected)})
    for run in (deploy, plan):
        with pytest.raises(MarqueeError, match=says) as raised:
            run(connection, config, archive, progress=QUIET)
        assert str(raised.value).startswith("smoke.expected: ")
    assert cloud.book.calls == []


def test_an_archive_that_cannot_be_read_stops_before_the_first_call(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile, tmp_path: Path
) -> None:
    gone = dataclasses.replace(archive, path=tmp_path / "gone.mar")
    with pytest.raises(MarqueeError, match=r"gone\.mar cannot be read"):
        deploy(connection, configure(), gone, QUIET)
    assert cloud.book.calls == []
