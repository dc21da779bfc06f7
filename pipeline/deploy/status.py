"""The present state: versions, deployed models, traffic, roles, machines and their costs."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.inventory import FoundEndpoint, Serving
from pipeline.deploy.survey import survey


@dataclass(frozen=True)
class VersionStatus:
    """A registered version; the digests are the first 40 hex digits. ``ours``: made by marquee."""

    version: str
    aliases: tuple[str, ...]
    archive_digest: str
    weights_digest: str
    created: str
    ours: bool


@dataclass(frozen=True)
class DeployedStatus:
    """A deployed model: its traffic in percent, its machines, dollars per hour of one replica or None.

    ``role`` is "in service", "canary", "predecessor" or ""; ``proved``: it has passed a smoke test.
    """

    id: str
    model: str
    version: str
    traffic: int
    machine: str
    accelerator: str
    min_replicas: int
    max_replicas: int
    available_replicas: int
    dollars_per_hour: float | None
    role: str
    proved: bool
    ours: bool


@dataclass(frozen=True)
class Status:
    """A model and its endpoint; the tuples are empty where nothing exists."""

    model: str
    versions: tuple[VersionStatus, ...]
    endpoint: str | None
    endpoint_kind: str
    deployed: tuple[DeployedStatus, ...]

    @property
    def dollars_per_hour(self) -> float:
        """The cost of the minimum number of replicas of all deployed models."""
        return sum((model.dollars_per_hour or 0.0) * max(1, model.min_replicas) for model in self.deployed)


def status(connection: Connection, config: DeployConfig) -> Status:
    """Read the state from the cloud."""
    found = survey(connection, config)
    endpoint = found.endpoint
    return Status(
        model=config.model,
        versions=tuple(
            VersionStatus(
                version=version.version_id,
                aliases=version.aliases,
                archive_digest=version.archive_digest,
                weights_digest=version.weights_digest,
                created=version.created.isoformat(timespec="seconds"),
                ours=version.ours,
            )
            for version in found.versions
        ),
        endpoint=endpoint.name if endpoint else None,
        endpoint_kind="dedicated" if endpoint and endpoint.dedicated else "shared",
        deployed=tuple(_deployed(endpoint, model) for model in endpoint.deployed) if endpoint else (),
    )


def _deployed(endpoint: FoundEndpoint, model: Serving) -> DeployedStatus:
    hardware = model.hardware
    accelerator = f"{hardware.accelerator_count} x {hardware.accelerator}" if hardware.accelerator else "none"
    return DeployedStatus(
        id=model.id,
        model=model.model_id,
        version=model.version_id,
        traffic=model.share,
        machine=hardware.machine,
        accelerator=accelerator,
        min_replicas=model.scaling.min_replicas,
        max_replicas=model.scaling.max_replicas,
        available_replicas=model.available_replicas,
        dollars_per_hour=model.dollars,
        role=endpoint.roles.of(model.id),
        proved=model.proved,
        ours=model.ours,
    )
