"""The plan of a teardown: removes all that marquee made for a configuration and lists what stays."""

from __future__ import annotations

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.fates import fates
from pipeline.deploy.inventory import FoundBucket, FoundEndpoint, Inventory, Serving, Version
from pipeline.deploy.places import serving_list
from pipeline.deploy.plan import (
    Action,
    DeleteArchive,
    DeleteBucket,
    DeleteEndpoint,
    DeleteModel,
    DeleteVersion,
    Plan,
    Traffic,
)
from pipeline.deploy.rollout_plan import shares_text, undeployed
from pipeline.deploy.shares import without


def plan_teardown(config: DeployConfig, found: Inventory, bucket: FoundBucket | None) -> Plan:
    """Remove endpoint, model and archives, each only if it carries marquee's mark."""
    left: list[str] = []
    on_endpoint = _endpoint_actions(config, found.endpoint, left)
    on_model, staying = _model_actions(config, found, left)
    in_bucket = _bucket_actions(bucket, staying, left) if bucket else []
    actions = (*on_endpoint, *on_model, *in_bucket)
    return Plan(
        command="teardown",
        actions=actions,
        fates=fates(found.endpoint, actions),
        left=tuple(left),
        running_dollars=sum(model.dollars_per_hour for model in found.deployed),
        split_before=found.traffic,
    )


def _endpoint_actions(config: DeployConfig, endpoint: FoundEndpoint | None, left: list[str]) -> list[Action]:
    if endpoint is None:
        return []
    leaving = _leaving(config, endpoint)
    staying = [model for model in endpoint.deployed if model not in leaving]
    thing = f"endpoint {config.endpoint}"
    if endpoint.ours and not staying:
        return [
            *_one_by_one(endpoint, leaving),
            DeleteEndpoint(thing=thing, detail="", endpoint_id=config.endpoint, takes_away="its address"),
        ]
    if not endpoint.ours:
        left.append(f"{thing}: it was not made by marquee")
    if staying:
        left.append(f"on {thing}, not made by marquee for this model: {serving_list(tuple(staying))}")
    if not leaving:
        return []
    ids = [model.id for model in leaving]
    split = without(endpoint.split, ids)
    traffic = Traffic(
        thing="on the endpoint", detail=shares_text(split, None), split=split, roles=None, command="teardown"
    )
    return [traffic, *(undeployed(model, split) for model in leaving)]


def _leaving(config: DeployConfig, endpoint: FoundEndpoint) -> list[Serving]:
    """On marquee's endpoint all of marquee's models; on another endpoint only those of this model."""
    return [model for model in endpoint.our_models if endpoint.ours or model.model_id == config.model]


def _one_by_one(endpoint: FoundEndpoint, leaving: list[Serving]) -> list[Action]:
    """Undeploy models without traffic first, so that the others serve until the end."""
    actions: list[Action] = []
    order = sorted(leaving, key=lambda model: model.share)
    split = endpoint.split
    for index, model in enumerate(order):
        rest = [each.id for each in order[index + 1 :]]
        split = without(split, [model.id], rest[-1:])
        actions.append(undeployed(model, split))
    return actions


def _model_actions(
    config: DeployConfig, found: Inventory, left: list[str]
) -> tuple[list[Action], list[Version]]:
    """The actions on the model's versions, and the versions that stay."""
    held = [version for version in found.versions if _reason_to_stay(config, found, version)]
    if not held:
        count = len(found.versions)
        detail = f"with {count} version(s)"
        thing = f"model {config.model}"
        return [DeleteModel(thing=thing, detail=detail, model_id=config.model)] if count else [], []
    staying, actions = list(held), list[Action]()
    for version in found.versions:
        if version in held:
            why = _reason_to_stay(config, found, version)
        elif version.is_default:
            why = "it is the default version, and other versions stay"
            staying.append(version)
        else:
            number = version.version_id
            thing = f"version {number} of model {config.model}"
            actions.append(DeleteVersion(thing=thing, detail="", model_id=config.model, version_id=number))
            continue
        left.append(f"model {config.model} version {version.version_id}: {why}")
    return actions, staying


def _reason_to_stay(config: DeployConfig, found: Inventory, version: Version) -> str:
    """Why a version is not deleted, "" when it is deleted."""
    if not version.ours:
        return "it was not made by marquee"
    elsewhere = sorted({name for name in version.deployed_on if name != config.endpoint})
    if elsewhere:
        return f"it is deployed on {', '.join(elsewhere)}"
    return ""


def _bucket_actions(bucket: FoundBucket, staying: list[Version], left: list[str]) -> list[Action]:
    used = {f"{version.artifact_uri}/model.mar" for version in staying}
    actions: list[Action] = []
    kept = []
    for archive in bucket.archives:
        if not archive.ours or archive.uri in used:
            kept.append(archive)
            why = "a version that stays uses it" if archive.ours else "it was not uploaded by marquee"
            left.append(f"{archive.uri}: {why}")
        else:
            actions.append(
                DeleteArchive(
                    thing=archive.uri,
                    detail="",
                    uri=archive.uri,
                    generation=archive.generation,
                    takes_away="the archive in the bucket",
                )
            )
    if not bucket.ours:
        left.append(f"bucket {bucket.name}: it was not made by marquee")
    elif kept or bucket.holds_more:
        left.append(f"bucket {bucket.name}: it holds other objects too")
    else:
        actions.append(
            DeleteBucket(thing=f"bucket {bucket.name}", detail="it is empty then", bucket=bucket.name)
        )
    return actions
