"""The part of a deploy's plan that changes the endpoint: deploy, smoke, traffic with roles, undeploy."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.inventory import FoundEndpoint, Hardware, Inventory, Scaling, Serving, Version
from pipeline.deploy.plan import Action, Deploy, Keep, MakeDefault, Resize, Smoke, Traffic, Undeploy
from pipeline.deploy.roles import Roles
from pipeline.deploy.shares import among_ours, with_share, without

_COMMAND = "deploy"


@dataclass(frozen=True)
class Target:
    """The deployed model that a deploy is for.

    ``there`` is None before it is deployed, ``version`` is None before its archive is registered.
    """

    id: str
    version: Version | None
    there: Serving | None
    hardware: Hardware
    scaling: Scaling

    def ever_served(self, endpoint: FoundEndpoint | None) -> bool:
        """Whether it has been in service or was proved; then a later failure removes nothing.

        With a role derived from the traffic, a model counts as one that served if it is in service beside
        others.
        """
        if self.there is None or endpoint is None:
            return False
        played = endpoint.roles.of(self.id) in ("in service", "predecessor")
        return self.there.proved or (played and (endpoint.labelled or len(endpoint.our_models) > 1))


@dataclass(frozen=True)
class Outcome:
    """The state after the deploy: the split, the roles, and the deployed models to undeploy."""

    split: dict[str, int]
    roles: Roles
    leaving: tuple[Serving, ...]


def rollout_actions(config: DeployConfig, found: Inventory, target: Target, dollars: float) -> list[Action]:
    """The actions on the endpoint; ``dollars`` is the price of one replica for an hour."""
    endpoint = found.endpoint
    share = min(config.smoke.percent, config.traffic)
    actions = _arrival(config, endpoint, target, share, dollars)
    detail = f"requests for {config.smoke.seconds} s at most, until this deployed model has drawn"
    actions.append(Smoke(thing=f"deployed model {target.id}", detail=detail, deployed_id=target.id))
    end = _outcome(config, endpoint, target, share)
    actions.append(_traffic_action(endpoint, target, end, actions))
    actions += _default_action(found, target, end)
    actions += [undeployed(model, end.split) for model in end.leaving]
    return actions


def undeployed(model: Serving, split: dict[str, int]) -> Undeploy:
    """The action that undeploys a model of ours; ``split`` is the traffic afterwards."""
    return Undeploy(
        thing=f"deployed model {model.id}",
        detail=f"{model.model_id} version {model.version_id} on {model.hardware}",
        deployed_id=model.id,
        split=split,
        dollars_per_hour=-model.dollars_per_hour,
        takes_away="its replicas; the version stays registered",
    )


def shares_text(split: dict[str, int], roles: Roles | None) -> str:
    """A split in words, with the roles of the models that have one."""
    played = roles or Roles()
    idle = [id_ for id_ in played.ids if id_ is not None and id_ not in split]
    told = [*split.items(), *((id_, 0) for id_ in idle)]
    words = [f"{id_}: {share} % {played.of(id_)}".rstrip() for id_, share in told]
    return ", ".join(words) or "no model gets requests"


def _arrival(
    config: DeployConfig, endpoint: FoundEndpoint | None, target: Target, share: int, dollars: float
) -> list[Action]:
    """Deploy the new model with enough traffic that requests reach it."""
    before = endpoint.split if endpoint else {}
    there = target.there
    if there is None:
        split = with_share(before, target.id, share)
        count = f"{config.min_replicas} to {config.max_replicas} x {target.hardware}"
        detail = f"{count}, {split[target.id]} % until its picture is right"
        return [
            Deploy(
                thing=f"deployed model {target.id}",
                detail=detail,
                deployed_id=target.id,
                model_id=config.model,
                version_id=target.version.version_id if target.version else None,
                split=split,
                dollars_per_hour=dollars * max(1, config.min_replicas),
            )
        ]
    actions = [_size_action(target, there)]
    enough = there.share > 0 if there.proved else there.share >= share
    if endpoint is not None and not enough:
        actions.append(_traffic(with_share(before, target.id, share), _while_asked(endpoint, target), None))
    return actions


def _while_asked(endpoint: FoundEndpoint, target: Target) -> Roles:
    """The roles during the smoke test: the model is a canary, unless it has served before.

    A predecessor keeps its role, so that a rollback takes away its traffic and does not undeploy it.
    """
    roles = endpoint.roles
    if target.id in (roles.in_service, roles.predecessor):
        return roles
    return Roles(roles.in_service, target.id, roles.without(target.id).predecessor)


def _size_action(target: Target, there: Serving) -> Action:
    thing, wanted, have = f"deployed model {there.id}", target.scaling, there.scaling
    detail = f"{wanted.min_replicas} to {wanted.max_replicas} x {target.hardware}"
    if wanted == have:
        return Keep(thing=thing, detail=detail)
    more = (max(1, wanted.min_replicas) - max(1, have.min_replicas)) * (there.dollars or 0.0)
    return Resize(thing=thing, detail=detail, deployed_id=there.id, dollars_per_hour=more)


def _outcome(config: DeployConfig, endpoint: FoundEndpoint | None, target: Target, least: int) -> Outcome:
    if endpoint is None:
        return Outcome({target.id: 100}, Roles(target.id), ())
    split, roles = endpoint.split, endpoint.roles
    foreign = {model.id for model in endpoint.foreign}
    theirs = any(split.get(id_) for id_ in foreign)
    if is_beside_a_canary(endpoint, target) and not (theirs and config.traffic < 100):
        return Outcome(split, roles, _idle_without_role(endpoint, roles))
    if config.traffic == 100 or (not theirs and roles.in_service in (None, target.id)):
        return _in_service(endpoint, target, least)
    if roles.in_service == target.id:
        share = with_share(split, target.id, config.traffic)
        return Outcome(share, roles, _idle_without_role(endpoint, roles))
    return _as_canary(endpoint, target, config.traffic)


def is_beside_a_canary(endpoint: FoundEndpoint, target: Target) -> bool:
    """Whether the model is in service already and a canary is on trial; then the deploy changes neither."""
    return endpoint.roles.in_service == target.id and endpoint.roles.canary is not None


def _in_service(endpoint: FoundEndpoint, target: Target, least: int) -> Outcome:
    """Give the new model all of marquee's traffic; the one before becomes predecessor, others are undeployed.

    Where models of others have all the traffic, the new model stays a canary.
    """
    roles, split = endpoint.roles, endpoint.split
    foreign = [model.id for model in endpoint.foreign]
    others = [model for model in endpoint.our_models if model.id != target.id]
    enters = roles.in_service is None and any(split.get(id_) for id_ in foreign)
    if enters:
        return _as_canary(endpoint, target, max(least, target.there.share if target.there else 0))
    ours = any(model.share for model in endpoint.our_models)
    final = among_ours(split, target.id, foreign, 1 if ours else least)
    before = roles.predecessor if roles.in_service in (None, target.id) else roles.in_service
    predecessor = before if before != target.id else None
    leaving = tuple(model for model in others if model.id != predecessor)
    return Outcome(final, Roles(target.id, None, predecessor), leaving)


def _as_canary(endpoint: FoundEndpoint, target: Target, percent: int) -> Outcome:
    """The new model gets ``percent``, the others the rest in proportion; an earlier canary is undeployed."""
    roles = endpoint.roles
    kept = roles.without(target.id)
    after = Roles(kept.in_service, target.id, kept.predecessor)
    leaving = tuple(model for model in endpoint.our_models if model.id not in after.ids)
    heirs = [after.in_service] if after.in_service else []
    idle = [after.predecessor] if after.predecessor and after.in_service in endpoint.split else []
    rest = without(endpoint.split, [target.id, *idle, *(model.id for model in leaving)], heirs)
    return Outcome(with_share(rest, target.id, percent), after, leaving)


def _idle_without_role(endpoint: FoundEndpoint, roles: Roles) -> tuple[Serving, ...]:
    """Models without traffic and role, which an interrupted run did not undeploy."""
    return tuple(model for model in endpoint.our_models if model.id not in roles.ids and not model.share)


def _traffic_action(
    endpoint: FoundEndpoint | None, target: Target, end: Outcome, earlier: list[Action]
) -> Action:
    """The final traffic and roles; a Keep if they are already written."""
    proved = target.there is not None and target.there.proved
    moved = any(isinstance(action, (Deploy, Traffic)) for action in earlier)
    written = (
        endpoint is not None
        and endpoint.labelled
        and (endpoint.split, endpoint.roles) == (end.split, end.roles)
    )
    if written and proved and not moved:
        return Keep(thing="traffic", detail=shares_text(end.split, end.roles))
    return _traffic(end.split, end.roles, target.id)


def _traffic(split: dict[str, int], roles: Roles, proved: str | None) -> Traffic:
    return Traffic(
        thing="on the endpoint",
        detail=shares_text(split, roles),
        split=split,
        roles=roles,
        command=_COMMAND,
        proved=proved,
    )


def _default_action(found: Inventory, target: Target, end: Outcome) -> list[Action]:
    """Make the version in service the default; Vertex AI makes a first version the default itself."""
    if end.roles.in_service != target.id or not found.versions:
        return []
    if target.version is not None and target.version.is_default:
        return []
    model_id = found.versions[0].model_id
    version_id = target.version.version_id if target.version else None
    return default_action(found, model_id, version_id)


def default_action(found: Inventory, model_id: str, version_id: str | None) -> list[Action]:
    """Make a version the default, unless the default is a version that marquee did not make."""
    thing = f"model {model_id}"
    theirs = next((v for v in found.versions if v.model_id == model_id and v.is_default and not v.ours), None)
    if theirs is not None:
        return [Keep(thing=thing, detail=f"version {theirs.version_id}, not marquee's, stays the default")]
    named = f"version {version_id}" if version_id else "the new version"
    return [
        MakeDefault(
            thing=thing, detail=f"{named} becomes the default", model_id=model_id, version_id=version_id
        )
    ]
