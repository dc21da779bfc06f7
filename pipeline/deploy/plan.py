"""What deploy would make, change and charge; reads, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import folder_of
from pipeline.deploy.rollout import SMOKE_PERCENT, wanted_id, with_share
from pipeline.deploy.status import price_of
from pipeline.deploy.survey import Survey, archive_is_there, survey
from pipeline.rules import Price, replica_price


@dataclass(frozen=True)
class Action:
    """One line of a plan: ``verb`` is create, upload, change, deploy or keep; ``detail`` says how."""

    verb: str
    thing: str
    detail: str


@dataclass(frozen=True)
class Plan:
    """The actions in order, and US dollars per hour while the least and the most replicas run.

    ``price`` is of one replica (None: not in the table); ``running_dollars`` is today's cost.
    """

    actions: tuple[Action, ...]
    price: Price | None
    min_dollars: float
    max_dollars: float
    running_dollars: float

    @property
    def changes(self) -> bool:
        return any(action.verb != "keep" for action in self.actions)


def plan(connection: Connection, config: DeployConfig, archive: ArchiveFile) -> Plan:
    """Compare the configuration with what is there."""
    found = survey(connection, config)
    actions = (
        _upload_action(connection, config, archive),
        _model_action(config, archive, found),
        _endpoint_action(config, found),
        *_deploy_actions(config, archive, found),
    )
    price = replica_price(
        config.machine, config.accelerator, config.accelerator_count, config.region, config.spot
    )
    dollars = price.dollars_per_hour if price else 0.0
    running = sum(price_of(model, config.region) or 0.0 for model in found.deployed)
    return Plan(actions, price, dollars * config.min_replicas, dollars * config.max_replicas, running)


def _upload_action(connection: Connection, config: DeployConfig, archive: ArchiveFile) -> Action:
    uri = f"gs://{config.bucket_name}/{folder_of(config.model, archive.archive_digest)}/model.mar"
    if archive_is_there(connection, config, archive):
        return Action("keep", uri, "already there, 0 bytes to send")
    return Action("upload", uri, f"{archive.size / 1e6:.1f} MB")


def _model_action(config: DeployConfig, archive: ArchiveFile, found: Survey) -> Action:
    known = found.version_of(archive, config.image_uri)
    if known is not None:
        return Action("keep", f"model {config.model}", f"version {known.version_id} is this archive")
    if found.versions:
        return Action("create", f"model {config.model}", f"a version after {found.versions[-1].version_id}")
    return Action("create", f"model {config.model}", f"its first version, {config.image_uri}")


def _endpoint_action(config: DeployConfig, found: Survey) -> Action:
    kind = "dedicated" if config.dedicated else "shared"
    if found.endpoint is None:
        return Action("create", f"endpoint {config.endpoint}", kind)
    return Action("keep", f"endpoint {config.endpoint}", kind)


def _deploy_actions(config: DeployConfig, archive: ArchiveFile, found: Survey) -> list[Action]:
    known = found.version_of(archive, config.image_uri)
    wanted = wanted_id(config, known) if known else None
    there = next((model for model in found.deployed if model.id == wanted), None)
    hardware = _hardware(config)
    if there is None:
        first = with_share(found.traffic, "0", SMOKE_PERCENT)["0"]
        deploy = Action(
            "deploy", f"model {config.model}", f"{hardware}, {first} % until its picture is right"
        )
    else:
        have = there.dedicated_resources
        same = (have.min_replica_count, have.max_replica_count) == (config.min_replicas, config.max_replicas)
        deploy = Action("keep" if same else "change", f"deployed model {there.id}", hardware)
    after = with_share(found.traffic, wanted or "0", config.traffic)
    if after == found.traffic:
        return [deploy, Action("keep", "traffic", _shares(after))]
    return [deploy, Action("change", "traffic", _shares(after))]


def _hardware(config: DeployConfig) -> str:
    accelerator = f" + {config.accelerator_count} x {config.accelerator}" if config.accelerator else ""
    spot = ", spot" if config.spot else ""
    return f"{config.min_replicas} to {config.max_replicas} x {config.machine}{accelerator}{spot}"


def _shares(split: dict[str, int]) -> str:
    return ", ".join(f"{'the new one' if key == '0' else key}: {share} %" for key, share in split.items())
