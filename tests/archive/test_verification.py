"""Every command and the local cloud verify the whole archive before they run anything of it."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_command import marquee, read_members, write_members

from pipeline.archive.layout import SUMS
from pipeline.archive.verification import RefusedArchive, verified_copy, verify_archive
from pipeline.cloud.vertex.containers import ContainerSpec, NeverReady
from pipeline.cloud.vertex.torchserve_container import start_torchserve
from pipeline.deploy.archive_file import read_archive
from pipeline.doctor.examine import rehearse
from pipeline.doctor.subject import Subject
from pipeline.errors import MarqueeError
from pipeline.serving.launch_files import write_launch_files
from pipeline.serving.settings import Ports, ServeOptions

HANDLER = "marquee_handler.py"


def changed_handler(archive: Path, path: Path, code: bytes) -> Path:
    content = read_members(archive)
    return write_members(path, content | {HANDLER: content[HANDLER] + code})


def second_handler(archive: Path, path: Path, code: bytes) -> Path:
    write_members(path, read_members(archive))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(HANDLER, code)
    return path


def handler_in_the_stream(archive: Path, path: Path, code: bytes) -> Path:
    """Java unpacks the stream, where this handler comes first; the directory does not list it."""
    name = HANDLER.encode()
    crc = zipfile.crc32(code)  # type: ignore[attr-defined]
    sizes = (crc, len(code), len(code), len(name), 0)
    hidden = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, *sizes) + name + code
    path.write_bytes(hidden + write_members(path, read_members(archive)).read_bytes())
    return path


def no_sums(archive: Path, path: Path, code: bytes) -> Path:
    content = read_members(archive)
    del content[SUMS]
    return write_members(path, content | {HANDLER: content[HANDLER] + code})


def outside_handler(archive: Path, path: Path, code: bytes) -> Path:
    (path.parent / "evil.py").write_bytes(code)
    manifest = read_members(archive)["MAR-INF/MANIFEST.json"]
    manifest = manifest.replace(HANDLER.encode(), str(path.parent / "evil.py").encode())
    return write_members(path, read_members(archive) | {"MAR-INF/MANIFEST.json": manifest}, fix_sums=True)


Spoil = Callable[[Path, Path, bytes], Path]
SPOILED: list[tuple[Spoil, str]] = [
    (changed_handler, "marquee_handler.py has changed"),
    (second_handler, "marquee_handler.py is in it 2 times"),
    (handler_in_the_stream, "belong to no file"),
    (no_sums, "MAR-INF/SHA256SUMS is missing"),
    (outside_handler, "evil.py"),
]
IDS = [spoil.__name__ for spoil, _ in SPOILED]


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The file that a spoiled archive's code makes once it runs."""
    return tmp_path / "ran"


@pytest.fixture(params=SPOILED, ids=IDS)
def spoiled(request: pytest.FixtureRequest, model_mar: Path, tmp_path: Path, ran: Path) -> tuple[Path, str]:
    spoil, reason = request.param
    code = f"open({str(ran)!r}, 'w').close()\n".encode()
    return spoil(model_mar, tmp_path / "spoiled.mar", code), reason


def test_serve_refuses_by_name_and_runs_nothing(spoiled: tuple[Path, str], ran: Path) -> None:
    path, reason = spoiled
    done = marquee("serve", "--mar", path, "--port", "0")
    assert done.returncode == 1
    assert reason in done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not ran.exists()


def test_the_doctors_rehearsal_refuses_and_runs_nothing(spoiled: tuple[Path, str], ran: Path) -> None:
    path, reason = spoiled
    subject = Subject("us-central1", "", "gs://x/y", "model.mar", path, "n1-standard-8", None, 0)
    (finding,) = rehearse(subject)
    assert finding.level == "problem"
    assert reason in finding.sentence
    assert not ran.exists()


def test_a_replica_of_the_local_cloud_refuses_and_runs_nothing(
    spoiled: tuple[Path, str], tmp_path: Path, ran: Path
) -> None:
    path, reason = spoiled
    spec = ContainerSpec(path, tmp_path / "replica", prebuilt=True, threads=1, start_seconds=60)
    with pytest.raises(NeverReady, match=reason):
        start_torchserve(spec, threading.Event())
    assert not ran.exists()


def test_deploy_plan_and_verify_refuse_it_before_the_first_call(spoiled: tuple[Path, str]) -> None:
    path, reason = spoiled
    with pytest.raises(RefusedArchive, match=reason) as refusal:
        read_archive(path)
    assert "marquee inspect" in str(refusal.value.cure)


def test_what_runs_are_the_bytes_that_were_verified(model_mar: Path, tmp_path: Path) -> None:
    """Whoever may write to the archive's folder cannot change what a server was started with."""
    mine = tmp_path / "model.mar"
    mine.write_bytes(model_mar.read_bytes())
    work = tmp_path / "work"
    write_launch_files(ServeOptions(), Ports(1, 2, 3, 4, 5), mine, work, work)
    with mine.open("r+b") as file:
        file.write(b"spoiled")
    copy = work / "model-store" / "model.mar"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert verify_archive(copy).problems == ()
    with pytest.raises(MarqueeError):
        verify_archive(mine)


def test_a_refused_copy_is_taken_away(model_mar: Path, tmp_path: Path) -> None:
    path = changed_handler(model_mar, tmp_path / "spoiled.mar", b"x = 1\n")
    with pytest.raises(RefusedArchive, match=r"spoiled\.mar is refused"):
        verified_copy(path, tmp_path / "copy.mar")
    assert not (tmp_path / "copy.mar").exists()


def test_many_problems_are_counted(model_mar: Path, tmp_path: Path) -> None:
    content = {name: data + b" " for name, data in read_members(model_mar).items() if name != SUMS}
    path = write_members(tmp_path / "m.mar", content | {SUMS: read_members(model_mar)[SUMS]})
    with pytest.raises(RefusedArchive, match=r"and \d+ more"):
        verify_archive(path)


FOREIGN_MANIFEST = b'{"model": {"modelName": "model", "handler": "its.py"}}'


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"its.py": b"", "MAR-INF/MANIFEST.json": FOREIGN_MANIFEST}, ""),
        ({"other.py": b"", "MAR-INF/MANIFEST.json": FOREIGN_MANIFEST}, "'its.py', which is not in"),
        ({"its.py": b"", "MAR-INF/MANIFEST.json": b"{}"}, "names no handler"),
        ({"its.py": b"", "../x.py": b"", "MAR-INF/MANIFEST.json": FOREIGN_MANIFEST}, "leaves the folder"),
        (
            {"its.py": b"", "MAR-INF/MANIFEST.json": FOREIGN_MANIFEST.replace(b"its.py", b"/tmp/its.py")},
            "'/tmp/its.py', which is not in",
        ),
        ({"its.py": b"", HANDLER: b"", "MAR-INF/MANIFEST.json": FOREIGN_MANIFEST}, f"{SUMS} is missing"),
        (
            {"its.py": b"", "handler/x.py": b"", "MAR-INF/MANIFEST.json": FOREIGN_MANIFEST},
            f"{SUMS} is missing",
        ),
    ],
)
def test_somebody_elses_archive_runs_only_where_it_is_wanted(
    tmp_path: Path, members: dict[str, bytes], reason: str
) -> None:
    path = write_members(tmp_path / "theirs.mar", members)
    with pytest.raises(MarqueeError, match=f"{SUMS} is missing|leaves the folder"):
        verified_copy(path, tmp_path / "copy.mar")
    if reason:
        with pytest.raises(RefusedArchive, match=reason):
            verified_copy(path, tmp_path / "copy.mar", foreign=True)
    else:
        verified_copy(path, tmp_path / "copy.mar", foreign=True)
        assert (tmp_path / "copy.mar").exists()


@pytest.mark.parametrize("command", [("serve", "--port", "0", "--mar"), ("inspect",)])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, kind in (
        (Path("/dev/zero"), "a device"),
        (tmp_path / "pipe", "a pipe"),
        (tmp_path / "link", "a device"),
        (tmp_path, "a folder"),
    ):
        done = marquee(*command, path)
        assert done.returncode == 1
        assert f"error: {path} is {kind}" in done.stderr
        assert "Traceback" not in done.stderr
        with pytest.raises(MarqueeError, match=kind):
            read_archive(path)
