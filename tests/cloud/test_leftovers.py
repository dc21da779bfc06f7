"""The next start removes what a killed cloud left behind, and no other files or processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.cloud.leftovers import end_orphans
from pipeline.cloud.options import CloudOptions
from pipeline.cloud.process import clean
from pipeline.cloud.servers import running_servers
from pipeline.cloud.state import CloudFolder
from pipeline.cloud.storage.draft import Checksums
from pipeline.cloud.storage.objects import ObjectStore, target
from pipeline.cloud.storage.parts import PartUploads
from pipeline.cloud.storage.records import ALWAYS
from pipeline.cloud.storage.resumable import ContentRange, ResumableUploads
from pipeline.serving.socket_folder import make_socket_folder

ASLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /tmp of this test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def made(path: Path) -> CloudFolder:
    folder = CloudFolder(path)
    folder.make()
    return folder


def replica_of(cloud: CloudFolder) -> Path:
    folder = cloud.vertex / "deployed" / "key" / "replica-0"
    folder.mkdir(parents=True)
    return folder


def test_the_socket_folders_of_killed_replicas_go_with_the_next_start(
    tmp_path: Path, temporary: Path
) -> None:
    cloud = made(tmp_path / "cloud")
    replica = replica_of(cloud)
    mine, killed = make_socket_folder(replica), make_socket_folder(replica)
    os.close(killed.lock)  # as the kernel does it for a process that is killed
    with cloud.locked():
        clean(cloud)
    assert mine.path.exists()
    assert not killed.path.exists()
    assert replica.is_dir()
    mine.remove()


def test_orphans_end_by_their_folder(tmp_path: Path) -> None:
    cloud, other = made(tmp_path / "cloud"), made(tmp_path / "other")
    ours, theirs = replica_of(cloud), replica_of(other)
    processes = [
        subprocess.Popen(ASLEEP, cwd=ours, start_new_session=True),
        subprocess.Popen([*ASLEEP, f"{ours}/config.properties"], start_new_session=True),
        subprocess.Popen([*ASLEEP, f"{theirs}/config.properties"], start_new_session=True),
    ]
    try:
        end_orphans(cloud.vertex)
        assert [process.poll() is None for process in processes] == [False, False, True]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_content_that_no_name_leads_to_goes_and_unfinished_uploads_stay(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    store.create_bucket("pictures")
    draft = store.draft()
    draft.write(b"kept")
    store.commit(draft, target("pictures", "kept"))
    parts, uploads = PartUploads(store), ResumableUploads(store)
    upload = parts.start("pictures", "parts", {})
    parts.receive(upload, 1, [b"part"], Checksums())
    session = uploads.start(target("pictures", "later"), ALWAYS, Checksums(), None)
    uploads.receive(session.id, ContentRange(0, 262143, None), [bytes(262144)], Checksums())
    uploads.close()
    left = store.draft()
    left.write(b"a sender that went away with the server")
    left.close()
    (tmp_path / "blobs" / "0123456789abcdef0123456789abcdef").write_bytes(b"never published")
    kept = {path.name for path in store.uploads.iterdir() if path.name.startswith((upload, session.id))}
    store.close()

    store = ObjectStore(tmp_path)
    assert {path.name for path in store.uploads.iterdir()} == kept
    assert len(list((tmp_path / "blobs").iterdir())) == len(store.list("pictures"))
    with store.open("pictures", "kept") as file:
        assert file.read() == b"kept"
    store.close()


def test_servers_start_in_a_folder_that_a_full_disk_left_half_written(tmp_path: Path) -> None:
    cloud = made(tmp_path / "cloud")
    for name in ("ca.pem", "server.pem", "server.key"):
        (cloud.certificates / name).write_text("-----BEGIN")
    (cloud.path / ".running.json.1").write_text("{")
    with running_servers(cloud, CloudOptions()) as running:
        assert running.storage.startswith("http://127.0.0.1:")
