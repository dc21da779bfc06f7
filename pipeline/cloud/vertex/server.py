"""Starts and stops the local Vertex AI: its services, its front ends and its records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.tokens import Keys

if TYPE_CHECKING:
    from pipeline.cloud.vertex.containers import StartContainer


@dataclass(frozen=True)
class VertexPorts:
    """The loopback ports to take; 0 takes a free one."""

    rest: int = 0
    grpc: int = 0
    dedicated: int = 0


@dataclass(frozen=True)
class VertexServers:
    """A running local Vertex AI. Both REST addresses take plain HTTP and TLS; gRPC takes TLS alone.

    ``dedicated_address`` is host:port where dedicated endpoints answer, their ``dedicated_endpoint_dns``.
    """

    rest_url: str
    grpc_address: str
    dedicated_address: str
    close: Callable[[], None]

    def stop(self) -> None:
        """Stop answering and end every replica; running operations continue at the next start."""
        self.close()


def start_vertex(
    store: ObjectStore,
    folder: Path,
    keys: Keys,
    faults: FaultBook,
    clock: Clock,
    ports: VertexPorts = VertexPorts(),
    start_container: StartContainer | None = None,
) -> VertexServers:
    """Serve what ``folder`` remembers: deployed models are started again, unfinished operations taken up.

    ``start_container`` runs replicas by other means than TorchServe.
    """
    from pipeline.cloud.vertex.artifacts import Artifacts
    from pipeline.cloud.vertex.grpc_front import GrpcServer
    from pipeline.cloud.vertex.methods import list_methods
    from pipeline.cloud.vertex.rest_front import Listening, RestServer
    from pipeline.cloud.vertex.services import Vertex
    from pipeline.cloud.vertex.torchserve_container import start_torchserve

    vertex = Vertex(folder, Artifacts(store, faults), start_container or start_torchserve, clock, faults)
    methods, handlers = list_methods(), vertex.handlers()
    predictions = [method for method in methods if method.service.endswith("PredictionService")]
    dedicated = RestServer(Listening(predictions, handlers, keys, dedicated=True), ports.dedicated)
    vertex.dedicated_dns = f"localhost:{dedicated.port}"
    rest = RestServer(Listening(methods, handlers, keys), ports.rest)
    grpc_server = GrpcServer(methods, handlers, keys, ports.grpc)
    rest.start()
    dedicated.start()
    vertex.resume()

    def close() -> None:
        for server in (grpc_server, rest, dedicated, vertex):
            server.stop()

    return VertexServers(f"http://127.0.0.1:{rest.port}", grpc_server.address, vertex.dedicated_dns, close)
