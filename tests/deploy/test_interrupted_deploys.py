"""`marquee deploy` killed after every remote call and at random moments, then run again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rehearsal_cloud import RehearsalCloud

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.survey import survey
from pipeline.deploy.teardown import teardown
from pipeline.progress import Silent

SECONDS = 120


def start_deploy(cloud: RehearsalCloud, archive: ArchiveFile) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline", "deploy", "--profile", "p100"]
    return subprocess.Popen(
        [*command, "--set", f"archive={archive.path}"],
        env={**os.environ, "MARQUEE_CLOUD": str(cloud.folder.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output.decode()


def check_and_clean(cloud: RehearsalCloud, connection: Connection, config, archive: ArchiveFile) -> None:
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
    cloud: RehearsalCloud, connection: Connection, configure, archive: ArchiveFile
) -> None:
    cloud.start_seconds = 0.5
    killed = 0
    while True:
        cloud.book.calls.clear()
        process = start_deploy(cloud, archive)
        cloud.book.kill_after, cloud.book.victim = killed + 1, process.pid
        process.communicate(timeout=SECONDS)
        cloud.book.victim = None
        if process.returncode == 0:
            break
        assert process.returncode == -9
        killed += 1
        finish(start_deploy(cloud, archive))
        check_and_clean(cloud, connection, configure(), archive)
    assert killed >= 12
    check_and_clean(cloud, connection, configure(), archive)


@pytest.mark.slow
def test_killed_at_random_moments(
    cloud: RehearsalCloud, connection: Connection, configure, archive: ArchiveFile
) -> None:
    cloud.start_seconds = 0.5
    chance = random.Random(20261121)
    for _ in range(10):
        process = start_deploy(cloud, archive)
        calls = len(cloud.book.calls)
        while len(cloud.book.calls) == calls and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 3))
        process.kill()
        process.communicate(timeout=SECONDS)
    finish(start_deploy(cloud, archive))
    check_and_clean(cloud, connection, configure(), archive)
