from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))
from rehearsal_cloud import RehearsalCloud, rehearsal_cloud

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection, connect


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[RehearsalCloud]:
    """Its minutes pass in seconds."""
    with rehearsal_cloud(tmp_path / "cloud", speed=60) as cloud:
        yield cloud


@pytest.fixture
def connection(cloud: RehearsalCloud) -> Iterator[Connection]:
    with connect(DeployConfig(), cloud.running, {}) as connection:
        yield connection
