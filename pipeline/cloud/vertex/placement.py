"""One model on one endpoint: the environment of its containers, and the paths of its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import rules
from pipeline.cloud.vertex.containers import HEALTH_ROUTE, PREDICT_ROUTE, ContainerSpec

_START_SECONDS = 1800.0  # how long a container may load here, unless the model says otherwise


def place_key(endpoint: str, deployed_id: str) -> str:
    """The key of a deployed model, usable as a file name; its id is unique only on its endpoint."""
    digest = hashlib.sha256(endpoint.encode()).hexdigest()[:8]
    return f"{endpoint.rpartition('/')[2]}-{digest}-{deployed_id}"


@dataclass(frozen=True)
class Placement:
    """``deployed`` is a DeployedModel and ``model`` the version it names."""

    endpoint: str
    deployed: Any
    model: Any

    @property
    def key(self) -> str:
        return place_key(self.endpoint, self.deployed.id)

    @property
    def replicas(self) -> int:
        """The number of replicas: the minimum of the request, and one where that is 0."""
        least: int = self.deployed.dedicated_resources.min_replica_count
        return max(1, least)

    def container(self, folder: Path, index: int, threads: int) -> ContainerSpec:
        """The replica of this number, for an archive that lies in ``folder``."""
        container = self.model.container_spec
        timeout = container.deployment_timeout
        return ContainerSpec(
            archive=folder / rules.ARCHIVE_NAME,
            folder=folder / f"replica-{index}",
            prebuilt=rules.parse_prebuilt(container.image_uri) is not None,
            threads=threads,
            start_seconds=timeout.total_seconds() if timeout else _START_SECONDS,
            predict_route=container.predict_route or PREDICT_ROUTE,
            health_route=container.health_route or HEALTH_ROUTE,
            environment=self._environment(),
            image_uri=container.image_uri,
        )

    def _environment(self) -> dict[str, str]:
        """The container's variables, as Google documents them for custom containers."""
        machine = self.deployed.dedicated_resources.machine_spec
        container = self.model.container_spec
        endpoint_id = self.endpoint.rpartition("/")[2]
        variables = {
            # Inside its container the server listens here; outside it is mapped, as by docker run -p.
            "AIP_HTTP_PORT": str(container.ports[0].container_port if container.ports else 8080),
            "AIP_HEALTH_ROUTE": container.health_route or HEALTH_ROUTE,
            "AIP_PREDICT_ROUTE": container.predict_route or PREDICT_ROUTE,
            "AIP_STORAGE_URI": self.model.artifact_uri,
            "AIP_MODE": "PREDICTION",
            "AIP_MODE_VERSION": "1.0.0",
            "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
            "AIP_PROJECT_NUMBER": self.endpoint.split("/")[1],
            "AIP_ENDPOINT_ID": endpoint_id,
            "AIP_MODEL_NAME": endpoint_id,
            "AIP_DEPLOYED_MODEL_ID": self.deployed.id,
            "AIP_VERSION_NAME": self.deployed.id,
            "AIP_MACHINE_TYPE": machine.machine_type,
        }
        if machine.accelerator_type:
            variables["AIP_ACCELERATOR_TYPE"] = machine.accelerator_type.name
        return {**variables, **{variable.name: variable.value for variable in container.env}}
