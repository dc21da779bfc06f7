"""What TorchServe's management API says about the model's workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

UNIX = "unix:"


@dataclass(frozen=True)
class WorkerState:
    """``statuses``: TorchServe's words, one per worker (READY, UNLOADING, ...); ``pids`` of the READY ones.

    ``pending`` requests wait in TorchServe's queue. A server that does not answer gives an empty state;
    ``missing``: it answers, and has no such model.
    """

    statuses: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    pending: int = 0
    missing: bool = False

    @property
    def ready(self) -> bool:
        """Whether every worker is loaded and has a process."""
        return bool(self.pids) and len(self.pids) == len(self.statuses)


def ask_management(management_url: str, path: str, seconds: float = 10.0) -> httpx.Response:
    """GET ``path`` of the management API at ``http://127.0.0.1:PORT`` or at the Unix socket ``unix:/PATH``.

    Raises httpx.TransportError where nothing answers within ``seconds``.
    """
    import httpx

    unix = management_url.removeprefix(UNIX) if management_url.startswith(UNIX) else None
    if unix is not None and not Path(unix).exists():
        raise httpx.ConnectError(f"{unix} is not there yet")
    # Never through a proxy that the environment names: the server is on this machine.
    transport = httpx.HTTPTransport(uds=unix, trust_env=False)
    base = management_url if unix is None else "http://management"
    with httpx.Client(transport=transport, trust_env=False, timeout=seconds) as client:
        return client.get(f"{base}{path}")


def read_worker_state(management_url: str, model_name: str) -> WorkerState:
    """Ask once, for at most ten seconds."""
    import httpx

    try:
        answer = ask_management(management_url, f"/models/{model_name}")
    except httpx.TransportError:
        return WorkerState()
    if answer.status_code == 200:
        return parse_worker_state(answer.json())
    return WorkerState(missing=answer.status_code == 404)


def parse_worker_state(description: Any) -> WorkerState:
    """Read the answer of ``GET /models/{name}``: a list with one object per version."""
    workers = [worker for version in description for worker in version.get("workers", ())]
    queues = [version.get("jobQueueStatus", {}) for version in description]
    ready = [worker for worker in workers if worker.get("status") == "READY" and worker.get("pid", 0) > 0]
    return WorkerState(
        statuses=tuple(worker.get("status", "") for worker in workers),
        pids=tuple(worker["pid"] for worker in ready),
        pending=sum(queue.get("pendingRequests", 0) for queue in queues),
    )
