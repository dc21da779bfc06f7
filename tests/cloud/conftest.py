from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import storage
from local_storage import LocalStorage

from pipeline.cloud.faults import FaultBook


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalStorage]:
    local = LocalStorage(tmp_path / "storage", FaultBook(tmp_path / "faults.json"))
    local.start()
    yield local
    local.stop()


@pytest.fixture
def bucket(local: LocalStorage) -> storage.Bucket:
    return local.client.create_bucket("pictures", location="us-central1")
