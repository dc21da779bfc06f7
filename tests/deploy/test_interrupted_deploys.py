"""`marquee deploy` killed after every remote call and at random moments, then run again."""

from __future__ import annotations

import random
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from deploying import start_deploy
from rehearsal_cloud import Configure, RehearsalCloud

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.survey import survey
from pipeline.deploy.teardown import teardown
from pipeline.progress import Silent

SECONDS = 120


def end(process: ForkServerProcess) -> int:
    """Its exit code; a process that does not end in time is a failure of the test."""
    process.join(SECONDS)
    code = process.exitcode
    process.kill()
    process.join()
    process.close()
    assert code is not None
    return code


def run_again(cloud: RehearsalCloud, archive: ArchiveFile, output: Path) -> None:
    code = end(start_deploy(cloud.folder.path, archive.path, output))
    assert code == 0, output.read_text()


def check_and_clean(
    cloud: RehearsalCloud, connection: Connection, config: DeployConfig, archive: ArchiveFile
) -> None:
    """One model with one version, one endpoint with one deployed model, one object, one replica."""
    found = survey(connection, config)
    assert [version.version_id for version in found.versions] == ["1"]
    assert [model.id for model in found.deployed] == list(found.traffic)
    assert list(found.traffic.values()) == [100]
    assert len(list(connection.models.list_models(parent=connection.location))) == 1
    assert len(list(connection.endpoints.list_endpoints(parent=connection.location))) == 1
    (blob,) = connection.storage.bucket(config.bucket_name).list_blobs()
    assert blob.crc32c == archive.crc32c
    running = connection.endpoints.list_operations({"name": connection.location}).operations
    assert all(operation.done for operation in running)
    teardown(connection, config, Silent())


@pytest.mark.slow
def test_killed_after_every_remote_call(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile, tmp_path: Path
) -> None:
    cloud.start_seconds = 0.5
    output = tmp_path / "output"
    killed = 0
    while True:
        cloud.book.calls.clear()
        cloud.book.kill_after = killed + 1
        process = start_deploy(cloud.folder.path, archive.path, output)
        cloud.book.victim = process.pid
        code = end(process)
        cloud.book.victim = None
        if code == 0:
            break
        assert code == -9, output.read_text()
        killed += 1
        run_again(cloud, archive, output)
        check_and_clean(cloud, connection, configure(), archive)
    assert killed >= 12
    check_and_clean(cloud, connection, configure(), archive)


@pytest.mark.soak
def test_killed_at_ten_random_moments(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile, tmp_path: Path
) -> None:
    cloud.start_seconds = 0.5
    output = tmp_path / "output"
    chance = random.Random(20261121)
    for _ in range(10):
        calls = len(cloud.book.calls)
        process = start_deploy(cloud.folder.path, archive.path, output)
        while len(cloud.book.calls) == calls and process.is_alive():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 2))
        process.kill()
        end(process)
    run_again(cloud, archive, output)
    check_and_clean(cloud, connection, configure(), archive)


@pytest.mark.slow
def test_two_deploys_at_once_do_not_hurt_each_other(
    cloud: RehearsalCloud, connection: Connection, configure: Configure, archive: ArchiveFile, tmp_path: Path
) -> None:
    cloud.start_seconds = 1.0
    outputs = [tmp_path / "first", tmp_path / "second"]
    started = [start_deploy(cloud.folder.path, archive.path, output) for output in outputs]
    codes = [end(process) for process in started]
    assert 0 in codes, [output.read_text() for output in outputs]
    run_again(cloud, archive, tmp_path / "third")
    check_and_clean(cloud, connection, configure(), archive)
