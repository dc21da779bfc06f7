"""What a caller may choose about one TorchServe of ours; everything else is fixed in ``launch_files``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAX_REQUEST_BYTES = 16_777_216
"""Above the handler's own limit (max_request_bytes, 10,000,000), so that the handler refuses first: its error
names the limit, TorchServe's own has no message."""

MAX_RESPONSE_BYTES = 67_108_864
"""Room for archives that raise max_response_bytes above TorchServe's stock limit."""

LOOPBACK = "127.0.0.1"
# The loopback network's broadcast address: see ports.grpc_address.
UNREACHABLE = "127.255.255.255"


@dataclass(frozen=True)
class ServeOptions:
    """How to run one TorchServe. Ports: 0 takes a free one.

    ``management_port`` 0 opens no port: TorchServe's management API, which has no password, then listens on
    a Unix socket in the server's private folder, for this user alone.
    ``service_envelope`` is "json" (what Vertex's prebuilt container is believed to use), "body" or None.
    ``threads`` is the worker's OMP_NUM_THREADS, None means all cores this process may use.
    ``environment`` is added to the curated environment of the server (the AIP_* variables of a replica).
    ``work_folder`` receives configuration, logs and temporary files and stays; None makes a private one that
    is removed at the stop. ``start_seconds`` is the longest wait for the warm-up picture; ``warm_up=False``
    waits for a READY worker only. ``maximum_load_failures`` loads may fail before the start is given up.
    ``python`` is the interpreter of server and worker, None this one.
    ``foreign`` also runs an archive that is not marquee's at all, as Google does; only the local cloud does.
    """

    port: int = 0
    management_port: int = 0
    metrics_port: int = 0
    bind_address: str = "127.0.0.1"
    model_name: str = "model"
    service_envelope: str | None = "json"
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    work_folder: Path | None = None
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_response_bytes: int = MAX_RESPONSE_BYTES
    start_seconds: float = 600.0
    warm_up: bool = True
    maximum_load_failures: int = 1
    python: Path | None = None
    foreign: bool = False


@dataclass(frozen=True)
class Ports:
    """The sockets TorchServe binds; ``management`` is None where it has a Unix socket instead.

    TorchServe has no switch for gRPC, so its two are always taken as well.
    """

    inference: int
    management: int | None
    metrics: int
    grpc_inference: int
    grpc_management: int
    grpc_address: str = LOOPBACK
