"""The processes of deployed models: started, stopped, and started again after a restart of the cloud."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from pipeline import rules
from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.vertex.artifacts import Artifacts
from pipeline.cloud.vertex.checks import failure_of
from pipeline.cloud.vertex.containers import NeverReady, StartContainer
from pipeline.cloud.vertex.failures import ServiceFailure
from pipeline.cloud.vertex.placement import Placement
from pipeline.cloud.vertex.replicas import ReplicaSet

_NEVER_READY_SECONDS = 2.0
_LIVENESS_SECONDS = 2.0
_DRAIN_SECONDS = 60.0


class Deployments:
    """The replicas of every deployed model, by its key; ``folder/KEY`` keeps its archive and their logs."""

    def __init__(
        self, folder: Path, artifacts: Artifacts, start: StartContainer, clock: Clock, faults: FaultBook
    ) -> None:
        self._folder = folder
        self._artifacts = artifacts
        self._start = start
        self._clock = clock
        self._faults = faults
        self._running: dict[str, ReplicaSet] = {}
        self._lost: set[str] = set()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="liveness", daemon=True)
        self._watcher.start()

    def deploy(self, place: Placement, stop: threading.Event) -> None:
        """Fetch the archive and start the replicas; undoes everything when it raises ServiceFailure."""
        try:
            if not (self._folder / place.key / rules.ARCHIVE_NAME).exists():
                self._artifacts.fetch_archive(place.model.artifact_uri, self._folder / place.key)
            self.start(place, stop)
        except ServiceFailure:
            (self._folder / place.key / rules.ARCHIVE_NAME).unlink(missing_ok=True)  # the logs stay
            raise

    def start(self, place: Placement, stop: threading.Event) -> None:
        """Start a deployed model's replicas from the archive kept here; raises ServiceFailure."""
        target = f"DeployModel/{place.deployed.display_name}"
        slow = self._faults.take("slow-start", target)
        if slow is not None:
            self._clock.sleep(slow.parameters["seconds"], stop)
        if self._faults.take("never-ready", target) is not None:
            self._clock.sleep(_NEVER_READY_SECONDS, stop)
            raise _never_ready(NeverReady(["no container was started: fault never-ready"]))
        replicas = ReplicaSet(self._start)
        self._scale(replicas, place, stop)
        with self._changed:
            self._running[place.key] = replicas
            self._changed.notify_all()

    def scale(self, place: Placement, stop: threading.Event) -> None:
        """Start or stop replicas of a running deployed model until there are as many as it asks for."""
        with self._changed:
            replicas = self._running.get(place.key)
        if replicas is not None:
            self._scale(replicas, place, stop)

    def _scale(self, replicas: ReplicaSet, place: Placement, stop: threading.Event) -> None:
        before = len(replicas)
        replicas.shrink(place.replicas, _DRAIN_SECONDS)
        try:
            while len(replicas) < place.replicas:
                folder, threads = self._folder / place.key, self._threads(place)
                replicas.grow(place.container(folder, len(replicas), threads), stop)
        except NeverReady as error:
            replicas.shrink(before)
            raise _never_ready(error) from error

    def _threads(self, place: Placement) -> int:
        """Each replica's share of the cores: replicas with more threads than cores starve each other."""
        others = sum(len(replicas) for key, replicas in list(self._running.items()) if key != place.key)
        return max(1, len(os.sched_getaffinity(0)) // (others + place.replicas))

    def undeploy(self, key: str) -> None:
        """Let running requests finish, stop the replicas, and delete the archive and the logs."""
        with self._changed:
            replicas = self._running.pop(key, None)
        if replicas is not None:
            replicas.shrink(0, _DRAIN_SECONDS)
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def lose(self, key: str) -> None:
        """Record that a deployed model could not be started again, so that no request waits for it."""
        with self._changed:
            self._lost.add(key)
            self._changed.notify_all()

    def replicas(self, key: str, seconds: float) -> ReplicaSet | None:
        """The replicas of a deployed model; after a restart it waits until they run again."""

        def known() -> bool:
            return key in self._running or key in self._lost or self._closed.is_set()

        with self._changed:
            self._changed.wait_for(known, seconds)
            return self._running.get(key)

    def count(self, key: str) -> int:
        """How many replicas of a deployed model run now."""
        with self._changed:
            return len(self._running.get(key, ()))

    def stop(self) -> None:
        """Stop every replica; their archives stay for the next start."""
        self._closed.set()
        self._watcher.join()
        with self._changed:
            running, self._running = self._running, {}
            self._changed.notify_all()
        for replicas in running.values():
            replicas.shrink(0)

    def _watch(self) -> None:
        while not self._closed.wait(_LIVENESS_SECONDS):
            for replicas in list(self._running.values()):
                replicas.replace_dead(self._closed)


def _never_ready(error: NeverReady) -> ServiceFailure:
    """Google's text, which ends with the place of the logs: here a file, whose last lines follow."""
    failure = failure_of("never_ready", "model", "")
    where = f" Model server logs can be found at {error.log}." if error.log else ""
    lines = "\n".join(error.lines)
    return ServiceFailure(failure.code, f"{failure.message}{where} Last lines:\n{lines}")
