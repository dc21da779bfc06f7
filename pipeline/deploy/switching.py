"""The plans of promote and rollback: which model is in service afterwards, and which are undeployed."""

from __future__ import annotations

from pipeline.deploy.fates import fates
from pipeline.deploy.inventory import FoundEndpoint, Inventory, Serving
from pipeline.deploy.places import serving_list
from pipeline.deploy.plan import Action, Plan, Traffic
from pipeline.deploy.roles import Roles
from pipeline.deploy.rollout_plan import default_action, shares_text, undeployed
from pipeline.deploy.shares import among_ours, without
from pipeline.errors import MarqueeError


def plan_promote(found: Inventory, endpoint_id: str, unproved: bool, discard: bool) -> Plan:
    """Give the canary all of marquee's traffic; the one before keeps 0 %, or is undeployed with ``discard``.

    Raises MarqueeError when there is no canary, or when it was never proved and ``unproved`` is False.
    """
    endpoint = _endpoint(found, endpoint_id)
    roles = endpoint.roles
    if roles.canary is None:
        return _finished(found, endpoint, discard)
    canary = _one(endpoint, roles.canary)
    if not canary.proved and not unproved:
        raise MarqueeError(
            f"deployed model {canary} was never proved: it has not passed a smoke test",
            cure="run `marquee deploy` again, which asks for the picture, or promote it with --unproved",
        )
    predecessor = None if discard else roles.in_service or roles.predecessor
    after = Roles(canary.id, None, predecessor)
    return _switch(found, endpoint, "promote", after)


def plan_rollback(found: Inventory, endpoint_id: str) -> Plan:
    """Undeploy the canary; without a canary give the predecessor all of marquee's traffic again.

    A predecessor that an interrupted deploy was trying again goes back to 0 % first.

    Raises MarqueeError when there is nothing to go back to.
    """
    endpoint = _endpoint(found, endpoint_id)
    roles = endpoint.roles
    theirs = any(model.share for model in endpoint.foreign)
    if roles.canary is not None and (roles.in_service or roles.predecessor or theirs):
        back = roles.in_service or (None if theirs else roles.predecessor)
        kept = None if back == roles.predecessor else roles.predecessor
        return _switch(found, endpoint, "rollback", Roles(back, None, kept))
    if _tried_again(endpoint) is not None:
        return _switch(found, endpoint, "rollback", roles)
    if endpoint.last_command == "rollback" and _without_role(endpoint, roles):
        return _switch(found, endpoint, "rollback", roles)
    if roles.canary is None and roles.predecessor is not None:
        return _switch(found, endpoint, "rollback", Roles(roles.predecessor))
    only = serving_list(endpoint.our_models)
    raise MarqueeError(
        f"endpoint {endpoint_id} has no canary and no predecessor, only {only}: nothing to roll back to",
        cure="deploy an older archive again",
    )


def _endpoint(found: Inventory, endpoint_id: str) -> FoundEndpoint:
    endpoint = found.endpoint
    if endpoint is None:
        raise MarqueeError(f"there is no endpoint {endpoint_id}", cure="marquee deploy")
    if not endpoint.our_models:
        theirs = f"; not marquee's: {serving_list(endpoint.foreign)}" if endpoint.foreign else ""
        raise MarqueeError(
            f"endpoint {endpoint_id} has no deployed model of marquee's{theirs}", cure="marquee deploy"
        )
    return endpoint


def _one(endpoint: FoundEndpoint, deployed_id: str) -> Serving:
    return next(model for model in endpoint.our_models if model.id == deployed_id)


def _without_role(endpoint: FoundEndpoint, roles: Roles) -> tuple[Serving, ...]:
    return tuple(model for model in endpoint.our_models if model.id not in roles.ids)


def _tried_again(endpoint: FoundEndpoint) -> str | None:
    """The predecessor if it has traffic beside the model in service: a deploy of it was interrupted."""
    split, roles = endpoint.split, endpoint.roles
    both = roles.canary is None and roles.in_service in split and roles.predecessor in split
    return roles.predecessor if both else None


def _finished(found: Inventory, endpoint: FoundEndpoint, discard: bool) -> Plan:
    """Without a canary: undeploy what an interrupted command left, and with ``discard`` the predecessor."""
    roles = endpoint.roles
    if not discard and (tried := _tried_again(endpoint)) is not None:
        raise MarqueeError(
            f"endpoint {endpoint.id} has no canary; "
            f"its predecessor {_one(endpoint, tried)} is being tried again",
            cure="run `marquee deploy` again, which puts it into service, or `marquee rollback`",
        )
    after = Roles(roles.in_service, None, None if discard else roles.predecessor)
    plan = _switch(found, endpoint, "promote", after)
    if not plan.changes:
        serves = f"; {_one(endpoint, roles.in_service)} is in service" if roles.in_service else ""
        raise MarqueeError(
            f"endpoint {endpoint.id} has no canary to promote{serves}",
            cure="marquee deploy --traffic 10 makes a canary",
        )
    return plan


def _switch(found: Inventory, endpoint: FoundEndpoint, command: str, after: Roles) -> Plan:
    """Change the roles to ``after``; our models without a role are undeployed."""
    leaving = _without_role(endpoint, after)
    foreign = [model.id for model in endpoint.foreign]
    if after.in_service is not None:
        split = among_ours(endpoint.split, after.in_service, foreign, least=1)
    else:
        split = without(endpoint.split, [model.id for model in leaving])
    actions: list[Action] = []
    if (split, after) != (endpoint.split, endpoint.roles):
        detail = shares_text(split, after)
        actions.append(
            Traffic(thing="on the endpoint", detail=detail, split=split, roles=after, command=command)
        )
    if after.in_service is not None and not (chosen := _one(endpoint, after.in_service)).is_default:
        actions += default_action(found, chosen.model_id, chosen.version_id)
    actions += [undeployed(model, split) for model in leaving]
    return Plan(
        command=command,
        actions=tuple(actions),
        fates=fates(endpoint, tuple(actions)),
        running_dollars=sum(model.dollars_per_hour for model in endpoint.deployed),
        split_before=endpoint.split,
    )
