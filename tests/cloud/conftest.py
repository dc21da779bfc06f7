from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import storage
from local_storage import LocalStorage
from standing_cloud import LOCATION, Standing

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


@pytest.fixture(scope="session")
def hostile_bucket(cloud: Standing) -> None:
    assert cloud.call("storage", "POST", "/storage/v1/b?project=p", {"name": "hostile"}).status == 200


@pytest.fixture
def unharmed(cloud: Standing, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After each test every server still answers, and none met an error that it did not expect."""
    caplog.set_level(logging.ERROR)
    yield
    assert cloud.call("storage", "GET", "/storage/v1/b/hostile").status == 200
    assert cloud.call("vertex_rest", "GET", f"/v1/{LOCATION}/models").status == 200
    assert cloud.call("accounts", "GET", "/v1/projects/p").status == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
