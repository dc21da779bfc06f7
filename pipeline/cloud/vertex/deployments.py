"""Deployed models as processes: what DeployModel starts, UndeployModel stops and a restart starts again."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

from pipeline import rules
from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.vertex.artifacts import Artifacts
from pipeline.cloud.vertex.checks import failure_of
from pipeline.cloud.vertex.containers import (
    HEALTH_ROUTE,
    PREDICT_ROUTE,
    ContainerSpec,
    NeverReady,
    StartContainer,
)
from pipeline.cloud.vertex.failures import ServiceFailure
from pipeline.cloud.vertex.traffic import ReplicaSet

_START_SECONDS = 1800.0  # how long a container may load here, unless the model says otherwise
_NEVER_READY_SECONDS = 2.0


class Deployments:
    """The replicas of every deployed model, by its id; ``folder/ID`` keeps its archive and their logs."""

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

    def deploy(self, endpoint: str, deployed: Any, model: Any, stop: threading.Event) -> None:
        """Fetch the archive and start the replicas; undoes everything when it raises ServiceFailure."""
        try:
            if not (self._folder / deployed.id / rules.ARCHIVE_NAME).exists():
                self._artifacts.fetch_archive(model.artifact_uri, self._folder / deployed.id)
            self.start(endpoint, deployed, model, stop)
        except ServiceFailure:
            self.undeploy(deployed.id, keep_logs=True)
            raise

    def start(self, endpoint: str, deployed: Any, model: Any, stop: threading.Event) -> None:
        """Start what a deployed model needs from the archive kept here; raises ServiceFailure."""
        title = deployed.display_name
        slow = self._faults.take("slow-start", f"DeployModel/{title}")
        if slow is not None:
            self._clock.sleep(slow.parameters["seconds"], stop)
        if self._faults.take("never-ready", f"DeployModel/{title}") is not None:
            self._clock.sleep(_NEVER_READY_SECONDS, stop)
            raise _never_ready(NeverReady(["no container was started: fault never-ready"]))
        container = model.container_spec
        replicas = ReplicaSet(container.predict_route or PREDICT_ROUTE)
        self.scale(replicas, endpoint, deployed, model, stop)
        with self._changed:
            self._running[deployed.id] = replicas
            self._changed.notify_all()

    def scale(
        self, replicas: ReplicaSet, endpoint: str, deployed: Any, model: Any, stop: threading.Event
    ) -> None:
        """Start or stop replicas until there are as many as the least that the deployed model asks for."""
        wanted = max(1, deployed.dedicated_resources.min_replica_count)
        replicas.shrink(wanted)
        try:
            while len(replicas) < wanted:
                replicas.add(self._start(self._spec(endpoint, deployed, model, len(replicas)), stop))
        except NeverReady as error:
            replicas.shrink(0)
            raise _never_ready(error) from error

    def _spec(self, endpoint: str, deployed: Any, model: Any, index: int) -> ContainerSpec:
        container = model.container_spec
        folder = self._folder / deployed.id
        timeout = container.deployment_timeout
        return ContainerSpec(
            archive=folder / rules.ARCHIVE_NAME,
            folder=folder / f"replica-{index}",
            prebuilt=rules.parse_prebuilt(container.image_uri) is not None,
            threads=self._threads(deployed),
            start_seconds=timeout.total_seconds() if timeout else _START_SECONDS,
            predict_route=container.predict_route or PREDICT_ROUTE,
            health_route=container.health_route or HEALTH_ROUTE,
            environment=_environment(endpoint, deployed, model),
        )

    def _threads(self, deployed: Any) -> int:
        """Each replica's share of the cores: replicas with more threads than cores starve each other."""
        others = sum(len(replicas) for replicas in list(self._running.values()))
        wanted: int = max(1, deployed.dedicated_resources.min_replica_count)
        return max(1, len(os.sched_getaffinity(0)) // (others + wanted))

    def undeploy(self, deployed_id: str, keep_logs: bool = False) -> None:
        """Stop the replicas and forget the archive."""
        with self._changed:
            replicas = self._running.pop(deployed_id, None)
        if replicas is not None:
            replicas.shrink(0)
        if keep_logs:
            (self._folder / deployed_id / rules.ARCHIVE_NAME).unlink(missing_ok=True)
        else:
            shutil.rmtree(self._folder / deployed_id, ignore_errors=True)

    def lose(self, deployed_id: str) -> None:
        """Note that a deployed model could not be started again, so that nobody waits for it."""
        with self._changed:
            self._lost.add(deployed_id)
            self._changed.notify_all()

    def replicas(self, deployed_id: str, seconds: float) -> ReplicaSet | None:
        """The replicas of a deployed model; after a restart, waits so long until they run again."""

        def known() -> bool:
            return deployed_id in self._running or deployed_id in self._lost or self._closed.is_set()

        with self._changed:
            self._changed.wait_for(known, seconds)
            return self._running.get(deployed_id)

    def stop(self) -> None:
        """Stop every replica; their archives stay for the next start."""
        self._closed.set()
        with self._changed:
            running, self._running = self._running, {}
            self._changed.notify_all()
        for replicas in running.values():
            replicas.shrink(0)


def _never_ready(error: NeverReady) -> ServiceFailure:
    """Google's text, which ends with the place of the logs: here a file, whose last lines follow."""
    failure = failure_of("never_ready", "model", "")
    where = f" Model server logs can be found at {error.log}." if error.log else ""
    lines = "\n".join(error.lines)
    return ServiceFailure(failure.code, f"{failure.message}{where} Last lines:\n{lines}")


def _environment(endpoint: str, deployed: Any, model: Any) -> dict[str, str]:
    """The container's variables, as Google documents them for custom containers."""
    resources = deployed.dedicated_resources.machine_spec
    container = model.container_spec
    endpoint_id = endpoint.rpartition("/")[2]
    variables = {
        # Inside its container the server listens here; outside, the port is mapped, as with docker run -p.
        "AIP_HTTP_PORT": str(container.ports[0].container_port if container.ports else 8080),
        "AIP_HEALTH_ROUTE": container.health_route or HEALTH_ROUTE,
        "AIP_PREDICT_ROUTE": container.predict_route or PREDICT_ROUTE,
        "AIP_STORAGE_URI": model.artifact_uri,
        "AIP_MODE": "PREDICTION",
        "AIP_MODE_VERSION": "1.0.0",
        "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
        "AIP_PROJECT_NUMBER": endpoint.split("/")[1],
        "AIP_ENDPOINT_ID": endpoint_id,
        "AIP_MODEL_NAME": endpoint_id,
        "AIP_DEPLOYED_MODEL_ID": deployed.id,
        "AIP_VERSION_NAME": deployed.id,
        "AIP_MACHINE_TYPE": resources.machine_type,
    }
    if resources.accelerator_type:
        variables["AIP_ACCELERATOR_TYPE"] = resources.accelerator_type.name
    return {**variables, **{variable.name: variable.value for variable in container.env}}
