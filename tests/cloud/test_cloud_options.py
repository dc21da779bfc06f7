"""`marquee cloud` with impossible values: one sentence, a cure, and no file is made or removed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cloud.state import CloudFolder
from pipeline.errors import MarqueeError

COMMANDS = [
    ("up",),
    ("up", "--foreground"),
    ("down",),
    ("reset",),
    ("status",),
    ("status", "--json"),
    ("run", "--", "true"),
    ("fault", "set", "never-ready"),
    ("fault", "list"),
    ("fault", "clear"),
    ("fault", "clear", "never-ready"),
]
READING = [words for words in COMMANDS if words[0] not in ("up", "run") and words[:2] != ("fault", "set")]


def marquee(words: tuple[str, ...], state: Path | str) -> tuple[int, MarqueeError | None, str]:
    """Exit code, the user's error and what was printed; any other exception is ours and fails the test."""
    end = words.index("--") if "--" in words else len(words)
    asked = ["cloud", *words[:end], "--state", str(state), *words[end:]]
    done = CliRunner().invoke(app, asked)
    if isinstance(done.exception, MarqueeError):
        return 1, done.exception, done.output
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, None, done.output


@pytest.fixture
def dangling(tmp_path: Path) -> Path:
    path = tmp_path / "dangling"
    path.symlink_to(path)
    return path


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_states_that_are_no_folder(words: tuple[str, ...], dangling: Path) -> None:
    for state in (
        "/etc/passwd",
        "/etc/passwd/cloud",
        "/dev/null",
        dangling,
        "a" * 300,
        "~nobody-of-this-name/x",
    ):
        _, error, printed = marquee(words, state)
        assert error is not None, (state, printed)
        assert "the state folder" in str(error)
        assert error.cure
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_makes_nothing(words: tuple[str, ...], tmp_path: Path) -> None:
    code, error, printed = marquee(words, tmp_path / "none" / "cloud")
    assert (code, error) == (1 if words[0] == "status" else 0, None)
    assert printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_changes_nothing_in_a_cloud_that_is_down(words: tuple[str, ...], tmp_path: Path) -> None:
    folder = CloudFolder(tmp_path)
    folder.make()
    (folder.path / "notes").write_text("mine")
    (folder.storage / "notes").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    marquee(words, tmp_path)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "lock"] == before


def test_reset_removes_what_a_cloud_makes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "mine").write_text("kept")
    (tmp_path / "vertex").mkdir()
    assert "no local cloud" in marquee(("reset",), tmp_path)[2]
    folder = CloudFolder(tmp_path)
    folder.make()
    (folder.storage / "blobs").mkdir()
    (folder.storage / "blobs" / "one").write_text("gone")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("kept")
    (folder.vertex / "deployed").symlink_to(elsewhere)
    assert "emptied" in marquee(("reset",), tmp_path)[2]
    assert (tmp_path / "storage" / "mine").read_text() == (elsewhere / "mine").read_text() == "kept"
    assert not (folder.storage / "blobs").exists()


@pytest.mark.parametrize("name", ["running.json", "ports.json", "faults.json", "credentials.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[[3]]", b'{"pid": "x"}', b"\xff", b"[" * 100_000, b'{"storage": "x"}']
)
def test_files_of_the_state_that_are_broken_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = CloudFolder(tmp_path)
    folder.make()
    (tmp_path / name).write_bytes(content)
    commands = [words for words in COMMANDS if words[0] in ("status", "fault", "down")]
    if name == "credentials.json":
        commands.append(("up", "--foreground"))
    errors = [error for words in commands if (error := marquee(words, tmp_path)[1])]
    assert all(name in str(error) and error.cure for error in errors)
    if name == "credentials.json":
        assert errors


@pytest.mark.parametrize(
    "fault",
    [
        "",
        ",",
        "nothing",
        "upload-cut,",
        "upload-cut,=",
        "upload-cut,count=nan",
        "upload-cut,count=inf",
        "upload-cut,count=-1",
        "upload-cut,count=0",
        "upload-cut,count=1.5",
        "upload-cut,count=1e9",
        "upload-cut,count=²",
        "upload-cut,count=" + "9" * 5000,
        "upload-cut,after_bytes=nan",
        "upload-cut,after_bytes=-1",
        "slow-start,seconds=inf",
        "slow-start,seconds=1e300",
        "slow-start,seconds=-0.5",
        "slow-start,minutes=3",
        "slow-start\x1b[31m",
    ],
)
def test_faults_that_make_no_sense(fault: str, tmp_path: Path) -> None:
    for words in (
        ("fault", "set", "never-ready", fault),
        ("up", "--fault", fault),
        ("fault", "clear", fault),
    ):
        _, error, _ = marquee(words, tmp_path / "cloud")
        assert error is not None, words
        assert error.cure
        assert "\x1b" not in f"{error}{error.cure}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--speed", text) for text in ("nan", "inf", "-inf", "0", "-1", "1e300", "fast", "")],
        *[
            ("--date", text)
            for text in ("soon", "", "2027-02-30", "0001-01-01", "9999-12-31", "1999-12-31", "nan")
        ],
    ],
)
def test_clocks_that_make_no_sense(option: str, value: str, tmp_path: Path) -> None:
    for words in (("up", option, value), ("run", option, value, "--", "true")):
        code, error, printed = marquee(words, tmp_path / "cloud")
        assert (code == 1 and error is not None and error.cure) or code == 2
        assert option in (str(error) if error else printed)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    _, error, _ = marquee(("up",), tmp_path)
    assert "can be written by all" in str(error)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; needs the right to mount, which a container's root has."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this user may not mount")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    with open(small_disk / "all", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for words in (("up",), ("fault", "set", "never-ready"), ("up", "--foreground"), ("run", "--", "true")):
        _, error, _ = marquee(words, small_disk)
        assert "No space left" in str(error) or "disk" in str(error), error
        assert "Traceback" not in str(error)
    for reading in READING:
        marquee(reading, small_disk)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    _, error, _ = marquee(("up",), tmp_path / "cloud")
    assert "Permission denied" in str(error)
