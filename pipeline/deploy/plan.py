"""A plan: what a command changes, as values, in order. It is printed, and then exactly it is carried out.

The values name no provider. Only ``carry_out.py`` knows how an action is done in a cloud.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pipeline.deploy.roles import Roles
from pipeline.rules import Price


@dataclass(frozen=True, kw_only=True)
class Action:
    """One step. ``dollars_per_hour`` is what it adds to the bill (negative: what it saves).

    ``takes_away`` says what is gone afterwards, "" when nothing is.
    """

    verb: ClassVar[str] = ""
    changes: ClassVar[bool] = True
    thing: str
    detail: str
    dollars_per_hour: float = 0.0
    takes_away: str = ""


@dataclass(frozen=True, kw_only=True)
class Keep(Action):
    """Already as it should be; nothing is done."""

    verb = "keep"
    changes = False


@dataclass(frozen=True, kw_only=True)
class CreateBucket(Action):
    verb = "create"
    bucket: str


@dataclass(frozen=True, kw_only=True)
class Upload(Action):
    """The archive to its place in the bucket."""

    verb = "upload"


@dataclass(frozen=True, kw_only=True)
class Register(Action):
    """A new version of the model, from the archive. ``known`` are the versions that were there before."""

    verb = "register"
    model_id: str
    known: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CreateEndpoint(Action):
    verb = "create"
    endpoint_id: str


@dataclass(frozen=True, kw_only=True)
class Deploy(Action):
    """The model onto the endpoint. ``version_id`` None: the version that this plan registers."""

    verb = "deploy"
    deployed_id: str
    model_id: str
    version_id: str | None
    split: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Resize(Action):
    """Other replica counts or autoscaling targets for a deployed model."""

    verb = "resize"
    deployed_id: str


@dataclass(frozen=True, kw_only=True)
class Smoke(Action):
    """Ask until this deployed model has drawn, and look at its picture. It changes nothing."""

    verb = "smoke"
    changes = False
    deployed_id: str


@dataclass(frozen=True, kw_only=True)
class Traffic(Action):
    """The traffic split and the roles, written in one call. ``roles`` None: marquee's notes are removed.

    ``proved`` names the deployed model whose right picture was seen by now, if this plan asks for one.
    """

    verb = "traffic"
    split: dict[str, int]
    roles: Roles | None
    command: str
    proved: str | None = None


@dataclass(frozen=True, kw_only=True)
class MakeDefault(Action):
    """The version that is meant when no version is named."""

    verb = "default"
    model_id: str
    version_id: str | None


@dataclass(frozen=True, kw_only=True)
class Undeploy(Action):
    """``split`` is the traffic afterwards."""

    verb = "undeploy"
    deployed_id: str
    split: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DeleteEndpoint(Action):
    verb = "delete"
    endpoint_id: str


@dataclass(frozen=True, kw_only=True)
class DeleteModel(Action):
    """The model with all its versions."""

    verb = "delete"
    model_id: str


@dataclass(frozen=True, kw_only=True)
class DeleteVersion(Action):
    """``version_id`` None: the version that this plan registers."""

    verb = "delete"
    model_id: str
    version_id: str | None


@dataclass(frozen=True, kw_only=True)
class DeleteArchive(Action):
    verb = "delete"
    uri: str
    generation: int


@dataclass(frozen=True, kw_only=True)
class DeleteBucket(Action):
    verb = "delete"
    bucket: str


@dataclass(frozen=True)
class Fate:
    """What becomes of one deployed model; shares are percent, ``after`` None when it is undeployed."""

    id: str
    deployed_model: str
    before: int | None
    after: int | None
    role_before: str
    role_after: str

    def __str__(self) -> str:
        was = "new" if self.before is None else _with_role(self.before, self.role_before)
        becomes = "undeployed" if self.after is None else _with_role(self.after, self.role_after)
        return f"{self.deployed_model}: {was} -> {becomes}"


def _with_role(share: int, role: str) -> str:
    return f"{share} %, {role}" if role else f"{share} %"


@dataclass(frozen=True)
class Plan:
    """The actions of a command, in order, and what becomes of each deployed model of the endpoint.

    ``on_failure`` is done instead of the rest when the new model fails, as far as it is there by then.
    ``left`` lists what stays because it is not marquee's. ``price`` is of one replica (None: not in the
    table); ``min_dollars`` and ``max_dollars`` are per hour with the least and the most replicas;
    ``running_dollars`` is today's cost per hour of the endpoint. ``split_before`` is the traffic that the
    plan was made for, in percent by deployed model id. The last three are of a deploy: the deployed model
    it is about, its version (None: registered by the plan) and the archive's place.
    """

    command: str
    actions: tuple[Action, ...]
    fates: tuple[Fate, ...] = ()
    on_failure: tuple[Action, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    price: Price | None = None
    min_dollars: float = 0.0
    max_dollars: float = 0.0
    running_dollars: float = 0.0
    split_before: dict[str, int] = field(default_factory=dict)
    deployed_id: str = ""
    version_id: str | None = None
    archive_uri: str = ""

    @property
    def changes(self) -> bool:
        return any(action.changes for action in self.actions)

    def document(self) -> dict[str, Any]:
        """The plan for a JSON document."""
        lists = {
            "actions": [_document(action) for action in self.actions],
            "on_failure": [_document(action) for action in self.on_failure],
        }
        return {**dataclasses.asdict(self), **lists, "changes": self.changes}


def _document(action: Action) -> dict[str, Any]:
    return {"verb": action.verb, **dataclasses.asdict(action)}
