"""The replicas of one deployed model: started, lent to requests, replaced when dead, stopped when idle."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from pipeline.cloud.vertex.containers import Container, ContainerSpec, NeverReady, StartContainer

_RETRY_SECONDS = 30.0  # after a dead replica did not start again


class ReplicaSet:
    """Each request goes to the replica with the fewest running requests."""

    def __init__(self, start: StartContainer) -> None:
        self._start = start
        self._changed = threading.Condition()
        self._replicas: list[_Replica] = []

    def __len__(self) -> int:
        return len(self._replicas)

    def grow(self, spec: ContainerSpec, stop: threading.Event) -> None:
        """Start one more and wait until it is ready; raises NeverReady."""
        replica = _Replica(spec, self._start(spec, stop))
        with self._changed:
            self._replicas.append(replica)

    @contextlib.contextmanager
    def lend(self) -> Iterator[str]:
        """The URL to predict with, counted as busy until the block ends; raises ConnectionError."""
        with self._changed:
            if not self._replicas:
                raise ConnectionError("no replica is running")
            replica = min(self._replicas, key=lambda each: each.busy)
            replica.busy += 1
        try:
            yield replica.container.url + replica.spec.predict_route
        finally:
            with self._changed:
                replica.busy -= 1
                self._changed.notify_all()

    def shrink(self, count: int, drain_seconds: float = 0.0) -> None:
        """Stop the newest until ``count`` are left; their running requests may finish for so long."""
        with self._changed:
            leaving, self._replicas = self._replicas[count:], self._replicas[:count]
            self._changed.wait_for(lambda: not any(each.busy for each in leaving), drain_seconds)
        for replica in leaving:
            replica.container.stop()

    def replace_dead(self, stop: threading.Event) -> None:
        """Restart replicas that ended by themselves, as Google does when none accepts connections."""
        for replica in list(self._replicas):
            if replica.container.is_running() or time.monotonic() < replica.retry_at:
                continue
            replica.container.stop()
            try:
                container = self._start(replica.spec, stop)
            except NeverReady:
                replica.retry_at = time.monotonic() + _RETRY_SECONDS
                continue
            with self._changed:
                replica.container = container
                wanted = replica in self._replicas
            if not wanted:  # it was undeployed meanwhile
                container.stop()


class _Replica:
    def __init__(self, spec: ContainerSpec, container: Container) -> None:
        self.spec = spec
        self.container = container
        self.busy = 0
        self.retry_at = 0.0
