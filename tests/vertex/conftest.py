"""Running local clouds for the tests of pipeline/cloud/vertex."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_vertex import Clients, LocalVertex

from pipeline.cloud.certificates import Certificate, ensure_certificate
from pipeline.cloud.clock import Clock


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return ensure_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def cloud(tmp_path: Path, certificate: Certificate) -> Iterator[LocalVertex]:
    """A running cloud with a clock a hundred times as fast; gs://models/NAME holds three archives."""
    cloud = LocalVertex(tmp_path, certificate, Clock(speed=100))
    cloud.put("shapes/model.mar", b"shapes")
    cloud.put("letters/model.mar", b"letters")
    cloud.put("broken/model.mar", b"broken")
    cloud.start()
    yield cloud
    cloud.containers.gate.set()
    cloud.stop()
    cloud.store.close()


@pytest.fixture(params=["grpc", "rest"])
def clients(cloud: LocalVertex, request: pytest.FixtureRequest) -> Iterator[Clients]:
    """Both transports; they must not differ in what a caller sees."""
    clients = cloud.clients(request.param)
    yield clients
    for each in clients.close:
        each.close()
