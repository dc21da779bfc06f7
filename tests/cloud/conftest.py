from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import storage
from local_storage import LocalStorage
from standing_cloud import Standing

from pipeline.cloud.faults import FaultBook
from pipeline.cloud.options import CloudOptions
from pipeline.cloud.servers import running_servers
from pipeline.cloud.state import CloudFolder


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalStorage]:
    local = LocalStorage(tmp_path / "storage", FaultBook(tmp_path / "faults.json"))
    local.start()
    yield local
    local.stop()


@pytest.fixture
def bucket(local: LocalStorage) -> storage.Bucket:
    return local.client.create_bucket("pictures", location="us-central1")


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = CloudFolder(tmp_path_factory.mktemp("standing") / "cloud")
    with running_servers(folder, CloudOptions()) as running:
        yield Standing(folder, running)
