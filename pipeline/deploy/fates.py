"""Computes what a plan does to each deployed model of an endpoint."""

from __future__ import annotations

from pipeline.deploy.inventory import FoundEndpoint
from pipeline.deploy.plan import Action, Deploy, Fate, Traffic, Undeploy
from pipeline.deploy.roles import Roles


def fates(
    endpoint: FoundEndpoint | None, actions: tuple[Action, ...], new: tuple[str, str] | None = None
) -> tuple[Fate, ...]:
    """The fate of each deployed model under these actions; ``new`` is the id and name of an added one."""
    split = endpoint.split if endpoint else {}
    before = roles = endpoint.roles if endpoint else Roles()
    gone: set[str] = set()
    for action in actions:
        if isinstance(action, (Deploy, Traffic, Undeploy)):
            split = action.split
        if isinstance(action, Traffic):
            roles = action.roles or Roles()
        if isinstance(action, Undeploy):
            gone.add(action.deployed_id)
    found = [
        Fate(
            model.id,
            str(model),
            model.share,
            None if model.id in gone else split.get(model.id, 0),
            before.of(model.id),
            roles.of(model.id),
        )
        for model in (endpoint.deployed if endpoint else ())
    ]
    if new is not None:
        found.append(Fate(new[0], new[1], None, split.get(new[0], 0), "", roles.of(new[0])))
    return tuple(found)
