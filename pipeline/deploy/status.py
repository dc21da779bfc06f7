"""What is deployed now: versions, deployed models, traffic, replicas, machines and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import ARCHIVE_LABEL, WEIGHTS_LABEL
from pipeline.deploy.survey import survey
from pipeline.rules import replica_price

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import DeployedModel, Model


@dataclass(frozen=True)
class VersionStatus:
    """A registered version; the digests are the first 40 hex digits."""

    version: str
    aliases: tuple[str, ...]
    archive_digest: str
    weights_digest: str
    created: str


@dataclass(frozen=True)
class DeployedStatus:
    """A deployed model: its traffic in percent, its machines, dollars per hour of one replica or None."""

    id: str
    version: str
    traffic: int
    machine: str
    accelerator: str
    min_replicas: int
    max_replicas: int
    available_replicas: int
    dollars_per_hour: float | None


@dataclass(frozen=True)
class Status:
    """A model and its endpoint; empty tuples where there is nothing."""

    model: str
    versions: tuple[VersionStatus, ...]
    endpoint: str | None
    endpoint_kind: str
    deployed: tuple[DeployedStatus, ...]

    @property
    def dollars_per_hour(self) -> float:
        """Of all replicas that run at the least."""
        return sum((model.dollars_per_hour or 0.0) * max(1, model.min_replicas) for model in self.deployed)


def status(connection: Connection, config: DeployConfig) -> Status:
    """Read it all afresh."""
    found = survey(connection, config)
    endpoint = found.endpoint
    return Status(
        model=config.model,
        versions=tuple(_version(model) for model in found.versions),
        endpoint=endpoint.name if endpoint else None,
        endpoint_kind="dedicated" if endpoint and endpoint.dedicated_endpoint_enabled else "shared",
        deployed=tuple(_deployed(model, found.traffic, config.region) for model in found.deployed),
    )


def price_of(model: DeployedModel, region: str) -> float | None:
    """Dollars per hour of one replica of a deployed model, None where the table has no price."""
    resources = model.dedicated_resources
    machine = resources.machine_spec
    accelerator = machine.accelerator_type.name if machine.accelerator_count else None
    price = replica_price(
        machine.machine_type, accelerator, machine.accelerator_count, region, bool(resources.spot)
    )
    return price.dollars_per_hour if price else None


def _version(model: Model) -> VersionStatus:
    return VersionStatus(
        version=model.version_id,
        aliases=tuple(model.version_aliases),
        archive_digest=model.labels.get(ARCHIVE_LABEL, ""),
        weights_digest=model.labels.get(WEIGHTS_LABEL, ""),
        created=model.version_create_time.isoformat(timespec="seconds"),
    )


def _deployed(model: DeployedModel, traffic: dict[str, int], region: str) -> DeployedStatus:
    resources = model.dedicated_resources
    machine = resources.machine_spec
    return DeployedStatus(
        id=model.id,
        version=model.model_version_id or model.model.rpartition("@")[2],
        traffic=traffic.get(model.id, 0),
        machine=machine.machine_type,
        accelerator=f"{machine.accelerator_count} x {machine.accelerator_type.name}"
        if machine.accelerator_count
        else "none",
        min_replicas=resources.min_replica_count,
        max_replicas=resources.max_replica_count,
        available_replicas=model.status.available_replica_count if model.status else 0,
        dollars_per_hour=price_of(model, region),
    )
