from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rehearsal_cloud import Configure, RehearsalCloud, rehearsal_cloud, write_archive

from pipeline.deploy.archive_file import ArchiveFile, read_archive
from pipeline.deploy.config import DeployConfig, load_config
from pipeline.deploy.connection import Connection, connect

TODAY = date(2026, 11, 21)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[RehearsalCloud]:
    with rehearsal_cloud(tmp_path / "cloud") as cloud:
        yield cloud


@pytest.fixture
def configure() -> Configure:
    """A checked configuration of the p100 profile with some values changed."""

    def make(**values: Any) -> DeployConfig:
        return load_config(None, {"smoke": {"seconds": 60}, **values}, "p100", TODAY)

    return make


@pytest.fixture
def connection(cloud: RehearsalCloud, configure: Configure) -> Iterator[Connection]:
    with connect(configure(), cloud.running, {}) as connection:
        yield connection


@pytest.fixture
def archive(tmp_path: Path) -> ArchiveFile:
    return read_archive(write_archive(tmp_path / "model.mar"))


@pytest.fixture
def third_archive(tmp_path: Path) -> ArchiveFile:
    return read_archive(write_archive(tmp_path / "third.mar", b"third weights"))


@pytest.fixture
def other_archive(tmp_path: Path) -> ArchiveFile:
    """A fine-tune: the same model with other weights."""
    return read_archive(write_archive(tmp_path / "fine-tune.mar", b"other weights"))
