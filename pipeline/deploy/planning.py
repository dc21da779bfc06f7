"""Makes the plan of a deploy from the configuration, the archive and the survey; calls no cloud."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.fates import fates
from pipeline.deploy.inventory import (
    FoundEndpoint,
    Hardware,
    Inventory,
    Scaling,
    Serving,
    StoredArchive,
    Version,
)
from pipeline.deploy.labels import deployed_model_id, short
from pipeline.deploy.places import check_place
from pipeline.deploy.plan import (
    Action,
    CreateBucket,
    CreateEndpoint,
    DeleteEndpoint,
    DeleteModel,
    DeleteVersion,
    Keep,
    Plan,
    Register,
    Traffic,
    Undeploy,
    Upload,
)
from pipeline.deploy.rollout_plan import Target, is_beside_a_canary, rollout_actions
from pipeline.deploy.shares import without
from pipeline.rules import replica_price


def plan_deploy(config: DeployConfig, archive: ArchiveFile, found: Inventory, adopt: bool) -> Plan:
    """The plan. Raises MarqueeError when existing resources prevent the deploy; nothing is changed then."""
    notes = check_place(config, found, adopt)
    version = found.version_of(short(archive.archive_digest), config.image_uri)
    target = _target(config, archive, found, version)
    price = replica_price(
        config.machine, config.accelerator, config.accelerator_count, config.region, config.spot
    )
    dollars = price.dollars_per_hour if price else 0.0
    actions = (
        *_archive_actions(archive, found.stored),
        _model_action(config, found, version),
        _endpoint_action(config, found.endpoint),
        *rollout_actions(config, found, target, dollars),
    )
    label = f"{target.id} ({config.model} {_version_text(version)})"
    return Plan(
        command="deploy",
        actions=actions,
        fates=fates(found.endpoint, actions, None if target.there else (target.id, label)),
        on_failure=_on_failure(config, found, target, dollars),
        notes=(*notes, *_canary_note(found.endpoint, target)),
        price=price,
        min_dollars=dollars * config.min_replicas,
        max_dollars=dollars * config.max_replicas,
        running_dollars=sum(model.dollars_per_hour for model in found.deployed),
        split_before=found.traffic,
        deployed_id=target.id,
        version_id=version.version_id if version else None,
        archive_uri=found.stored.uri if found.stored else "",
    )


def _canary_note(endpoint: FoundEndpoint | None, target: Target) -> tuple[str, ...]:
    if endpoint is None or not is_beside_a_canary(endpoint, target):
        return ()
    told = f"deployed model {target.id} is in service already, and canary {endpoint.roles.canary} stays"
    return (f"{told}: `marquee promote` puts it into service, `marquee rollback` withdraws it",)


def wanted_hardware(config: DeployConfig) -> Hardware:
    """The configured hardware, which cannot be changed once the model is deployed."""
    accelerator = config.accelerator or None
    count = config.accelerator_count if accelerator else 0
    return Hardware(config.machine, accelerator, count, config.spot, config.service_account or "")


def wanted_scaling(config: DeployConfig) -> Scaling:
    targets = tuple(sorted(config.autoscaling.targets().items()))
    return Scaling(config.min_replicas, config.max_replicas, targets)


def _target(config: DeployConfig, archive: ArchiveFile, found: Inventory, version: Version | None) -> Target:
    """The deployed model that the deploy is for: an existing one, or a new one with a new id.

    The id is computed from content and hardware, so that a run after an interrupted one finds its deployment.
    """
    hardware, scaling = wanted_hardware(config), wanted_scaling(config)
    content = f"{config.model}|{archive.archive_digest}|{config.image_uri}"
    taken = {model.id for model in found.deployed}
    ids = [deployed_model_id(f"{content}|{number}", hardware) for number in range(len(taken) + 1)]
    there = _deployed_already(found.endpoint, hardware, version, ids)
    if there is not None:
        return Target(there.id, version, there, hardware, scaling)
    return Target(next(id_ for id_ in ids if id_ not in taken), version, None, hardware, scaling)


def _deployed_already(
    endpoint: FoundEndpoint | None, hardware: Hardware, version: Version | None, ids: Collection[str]
) -> Serving | None:
    if endpoint is None or version is None:
        return None
    for model in reversed(endpoint.our_models):
        same_version = (model.model_id, model.version_id) == (version.model_id, version.version_id)
        if same_version and (model.hardware == hardware or model.id in ids):
            return model
    return None


def _archive_actions(archive: ArchiveFile, stored: StoredArchive | None) -> list[Action]:
    assert stored is not None, "a deploy looks for its archive"
    if stored.matches:
        return [Keep(thing=stored.uri, detail="already there, 0 bytes to send")]
    upload = Upload(thing=stored.uri, detail=f"{archive.size / 1e6:.1f} MB")
    if stored.bucket_exists:
        return [upload]
    bucket = CreateBucket(thing=f"bucket {stored.bucket}", detail="for the archives", bucket=stored.bucket)
    return [bucket, upload]


def _model_action(config: DeployConfig, found: Inventory, version: Version | None) -> Action:
    thing = f"model {config.model}"
    if version is not None:
        return Keep(thing=thing, detail=f"version {version.version_id} is this archive")
    known = tuple(each.version_id for each in found.versions)
    detail = f"a version after {known[-1]}" if known else f"its first version, {config.image_uri}"
    return Register(thing=thing, detail=detail, model_id=config.model, known=known)


def _endpoint_action(config: DeployConfig, endpoint: FoundEndpoint | None) -> Action:
    kind = "dedicated" if config.dedicated else "shared"
    thing = f"endpoint {config.endpoint}"
    if endpoint is None:
        return CreateEndpoint(thing=thing, detail=kind, endpoint_id=config.endpoint)
    return Keep(thing=thing, detail=kind if endpoint.ours else f"{kind}, not marquee's")


def _version_text(version: Version | None) -> str:
    return f"version {version.version_id}" if version else "new version"


def _on_failure(config: DeployConfig, found: Inventory, target: Target, dollars: float) -> tuple[Action, ...]:
    """The actions that remove the new model when it fails; a model that has ever served is not removed."""
    if target.ever_served(found.endpoint):
        return ()
    endpoint, back = found.endpoint, list[Action]()
    rest = without(endpoint.split, [target.id], _heirs(endpoint, target.id)) if endpoint else {}
    saved = -dollars * max(1, config.min_replicas)
    thing = f"deployed model {target.id}"
    others = [model for model in found.deployed if model.id != target.id]
    if others and not rest:  # Vertex AI does not undeploy a model that has all the traffic
        stays = endpoint is not None and any(model.ours for model in others)
        roles = endpoint.roles.without(target.id) if endpoint and stays else None
        back.append(
            Traffic(
                thing="on the endpoint",
                detail="no model gets requests",
                split={},
                roles=roles,
                command="deploy",
            )
        )
    back.append(
        Undeploy(thing=thing, detail="it failed", deployed_id=target.id, split=rest, dollars_per_hour=saved)
    )
    if (endpoint is None or endpoint.ours) and not others:
        thing = f"endpoint {config.endpoint}"
        back.append(DeleteEndpoint(thing=thing, detail="nothing else is on it", endpoint_id=config.endpoint))
    return (*back, *_version_taken_back(config, found, target))


def _heirs(endpoint: FoundEndpoint, leaving: str) -> list[str]:
    """Our models that get the traffic when the failed model had all of it; the one in service comes first."""
    ours = [model.id for model in endpoint.our_models if model.id != leaving]
    first = (endpoint.roles.in_service, endpoint.roles.predecessor)
    return sorted(ours, key=lambda id_: first.index(id_) if id_ in first else len(first))


def _version_taken_back(config: DeployConfig, found: Inventory, target: Target) -> list[Action]:
    version, thing = target.version, f"model {config.model}"
    others = [each for each in found.versions if version is None or each.version_id != version.version_id]
    used_elsewhere = version is not None and any(name != config.endpoint for name in version.deployed_on)
    on_this = [model for model in found.deployed if model.id != target.id and version is not None]
    used_here = any(
        version and (model.model_id, model.version_id) == (version.model_id, version.version_id)
        for model in on_this
    )
    if used_elsewhere or used_here or (version is not None and version.is_default and others):
        return []
    if not others:
        return [DeleteModel(thing=thing, detail="its only version failed", model_id=config.model)]
    version_id = version.version_id if version else None
    return [
        DeleteVersion(
            thing=f"{_version_text(version)} of {thing}",
            detail="the version that failed",
            model_id=config.model,
            version_id=version_id,
        )
    ]
