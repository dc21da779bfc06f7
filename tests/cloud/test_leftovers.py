"""What a killed cloud leaves behind goes at the next start; what is somebody else's stays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.cloud.leftovers import end_orphans, sweep_links
from pipeline.cloud.options import CloudOptions
from pipeline.cloud.process import clean
from pipeline.cloud.servers import running_servers
from pipeline.cloud.state import CloudFolder
from pipeline.cloud.storage.draft import Checksums
from pipeline.cloud.storage.objects import ObjectStore, target
from pipeline.cloud.storage.parts import PartUploads
from pipeline.cloud.storage.records import ALWAYS
from pipeline.cloud.storage.resumable import ContentRange, ResumableUploads

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


def link_of(cloud: CloudFolder) -> Path:
    """A replica's link, as the container makes it."""
    from pipeline.cloud.vertex.torchserve_container import _link

    return _link(cloud.vertex / "deployed" / "key" / "replica-0")


def aged(link: Path) -> Path:
    os.utime(link, (0, time.time() - 3600), follow_symlinks=False)
    return link


def test_the_links_of_this_cloud_go(tmp_path: Path, temporary: Path) -> None:
    cloud = made(tmp_path / "cloud")
    first, second = link_of(cloud), link_of(cloud)
    with cloud.locked():
        clean(cloud)
    assert list(temporary.iterdir()) == []
    assert not first.is_symlink()
    assert not second.is_symlink()
    assert (cloud.vertex / "deployed" / "key" / "replica-0").is_dir()


def test_another_cloud_s_links_go_when_nobody_serves_it(tmp_path: Path, temporary: Path) -> None:
    cloud, other, served = (made(tmp_path / name) for name in ("cloud", "other", "served"))
    dead, gone, young = aged(link_of(other)), aged(link_of(other)), link_of(other)
    gone.unlink()
    gone.symlink_to("/there/is/no/such/cloud/vertex/deployed/key/replica-0")
    aged(gone)
    alive = aged(link_of(served))
    with served.locked():
        swept = sweep_links(cloud.path)
    assert sorted(swept) == sorted([dead.parent, gone.parent])
    assert sorted(temporary.iterdir()) == sorted([young.parent, alive.parent])


def test_a_link_that_a_process_works_by_stays(tmp_path: Path, temporary: Path) -> None:
    cloud, other = made(tmp_path / "cloud"), made(tmp_path / "other")
    link = aged(link_of(other))
    replica = subprocess.Popen([*ASLEEP, f"{link}/config.properties"], start_new_session=True)
    try:
        assert sweep_links(cloud.path) == []
    finally:
        replica.kill()
        replica.wait()
    assert sweep_links(cloud.path) == [link.parent]


def test_what_is_not_a_cloud_s_stays(tmp_path: Path, temporary: Path) -> None:
    cloud = made(tmp_path / "cloud")
    for number, lead in enumerate(
        ["/etc", str(cloud.path), "deployed/key/replica-0", "/vertex/deployed/a/b"]
    ):
        folder = temporary / f"marquee-{number}"
        folder.mkdir()
        (folder / "r").symlink_to(lead)
        aged(folder / "r")
    (temporary / "marquee-serve").mkdir()
    (temporary / "marquee-serve" / "config.properties").write_text("kept")
    beside = aged(link_of(cloud)).parent / "notes"
    beside.write_text("kept")
    before = sorted(path.name for path in temporary.iterdir())
    sweep_links(cloud.path)
    assert sorted(path.name for path in temporary.iterdir()) == before
    assert beside.read_text() == "kept"


def test_orphans_end_by_their_folder_and_by_their_link(tmp_path: Path, temporary: Path) -> None:
    cloud, other = made(tmp_path / "cloud"), made(tmp_path / "other")
    ours, theirs = link_of(cloud), link_of(other)
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
