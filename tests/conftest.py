"""What many tests share: the embedded model's archive, one real TorchServe that serves it, a client of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.archive.build import BuildConfig, build
from pipeline.client import Client
from pipeline.progress import Silent
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import serve

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a shared server carries the marker torchserve."""
    for item in items:
        if {"server", "continuous_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.torchserve)


@pytest.fixture(scope="session")
def model_mar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's archive, built once."""
    out = tmp_path_factory.mktemp("archive") / "model.mar"
    return build(BuildConfig(str(ROOT / "model_artifacts" / "shapes"), out), Silent()).path


@pytest.fixture(scope="session", autouse=True)
def no_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Replicas run with this environment's packages, whatever `marquee rehearse` has left on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARQUEE_REHEARSAL", str(tmp_path_factory.mktemp("no-twin")))
        yield


@pytest.fixture(scope="session")
def prebuilt_mar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for Google's prebuilt container, with the packages that `make env` has fetched."""
    out = tmp_path_factory.mktemp("prebuilt") / "model.mar"
    model = str(ROOT / "model_artifacts" / "shapes")
    return build(BuildConfig(model, out, container="vertex-pytorch-gpu-2-4"), Silent()).path


@pytest.fixture(scope="session")
def server(model_mar: Path) -> Iterator[RunningServer]:
    """Real TorchServe with that archive, as Vertex's prebuilt container runs it; one thread."""
    with serve(model_mar, ServeOptions(threads=1)) as running:
        yield running


@pytest.fixture(scope="session")
def continuous_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The embedded model with continuousBatching, as a container with TorchServe 0.12 may run it."""
    folder = tmp_path_factory.mktemp("continuous")
    config = (ROOT / "model_artifacts" / "model-config.yaml").read_text()
    config = re.sub(r"(?m)^(batchSize|continuousBatching|maxBatchDelay):.*\n", "", config)
    config = re.sub(r"(?m)^  max_batch:.*$", "  max_batch: 8", config)
    (folder / "c.yaml").write_text("batchSize: 48\nmaxBatchDelay: 1\ncontinuousBatching: true\n" + config)
    built = build(
        BuildConfig(str(ROOT / "model_artifacts" / "shapes"), folder / "model.mar", folder / "c.yaml"),
        Silent(),
    )
    with serve(built.path, ServeOptions(threads=1)) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A patient client of the shared server."""
    with Client(server.url) as client:
        yield client
