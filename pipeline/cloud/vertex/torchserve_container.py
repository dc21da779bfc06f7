"""A replica as the prebuilt container runs it: real TorchServe, model named ``model``, JSON envelope."""

from __future__ import annotations

import contextlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.cloud.vertex.containers import Container, ContainerSpec, NeverReady, is_healthy
from pipeline.containers.fit import container_log, target_of
from pipeline.containers.twin import find_twin
from pipeline.errors import MarqueeError
from pipeline.rules import table
from pipeline.serving.readiness import wait_until_ready
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ServeOptions
from pipeline.serving.torchserve import launch


@dataclass(frozen=True)
class TorchServeContainer:
    """A running TorchServe that the cloud holds by its URL."""

    server: RunningServer

    @property
    def url(self) -> str:
        return self.server.url

    def is_running(self) -> bool:
        return self.server.is_running()

    def stop(self) -> None:
        self.server.stop()


def start_torchserve(spec: ContainerSpec, stop: threading.Event) -> Container:
    """Start TorchServe; it is ready with a READY worker, which the prebuilt container's /ping does not check.

    Raises NeverReady, with all processes ended, also when ``stop`` is set meanwhile.
    """
    _refuse_misfit(spec)
    try:
        server = launch(spec.archive, _options(spec))
        with _ended_by(stop, server):
            wait_until_ready(server)
            if not is_healthy(server.url + spec.health_route):
                raise MarqueeError(f"the health route {spec.health_route} does not answer 200")
    except MarqueeError as error:
        raise NeverReady(str(error).splitlines(), spec.folder / "logs" / "model_log.log") from error
    return TorchServeContainer(server)


def _refuse_misfit(spec: ContainerSpec) -> None:
    """Refuse, with the container's text, an archive that the container could not run but this machine can."""
    try:
        lines = container_log(spec.archive, spec.image_uri)
    except (OSError, zipfile.BadZipFile, ValueError):
        return  # not an archive: TorchServe reports it better
    if lines:
        raise NeverReady(
            [*lines, f"{spec.image_uri} is not known to run this archive: marquee doctor names why"]
        )


def _options(spec: ContainerSpec) -> ServeOptions:
    # The prebuilt container leaves TorchServe's stock limits in force, which are the same for both.
    stock = table().torchserve_response_bytes
    twin = find_twin(target_of(spec.image_uri))
    return ServeOptions(
        threads=spec.threads,
        environment={**spec.environment, **(twin.replica_environment() if twin else {})},
        python=twin.python if twin else None,
        work_folder=spec.folder.absolute(),
        start_seconds=spec.start_seconds,
        warm_up=False,
        foreign=True,
        max_request_bytes=stock if spec.prebuilt else MAX_REQUEST_BYTES,
        max_response_bytes=stock if spec.prebuilt else MAX_RESPONSE_BYTES,
    )


@contextlib.contextmanager
def _ended_by(stop: threading.Event, server: RunningServer) -> Iterator[None]:
    """End the server when ``stop`` is set within the block, or when the block fails."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if stop.is_set():
                server.stop()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except BaseException:
        server.stop()
        raise
    finally:
        over.set()
        watcher.join()
