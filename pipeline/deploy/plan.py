"""A plan: the changes of a command as values, in order. It is printed first and then carried out unchanged.

The values name no provider. Only ``carry_out.py`` knows how to carry out an action in a cloud.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pipeline.deploy.roles import Roles
from pipeline.rules import Price


@dataclass(frozen=True, kw_only=True)
class Action:
    """One step. ``dollars_per_hour`` is the change of the running costs (negative: a saving).

    ``takes_away`` names what the action removes, "" if it removes nothing.
    """

    verb: ClassVar[str] = ""
    changes: ClassVar[bool] = True
    thing: str
    detail: str
    dollars_per_hour: float = 0.0
    takes_away: str = ""


@dataclass(frozen=True, kw_only=True)
class Keep(Action):
    """The resource is already as wanted; nothing is done."""

    verb = "keep"
    changes = False


@dataclass(frozen=True, kw_only=True)
class CreateBucket(Action):
    verb = "create"
    bucket: str


@dataclass(frozen=True, kw_only=True)
class Upload(Action):
    """Upload the archive to its place in the bucket."""

    verb = "upload"


@dataclass(frozen=True, kw_only=True)
class Register(Action):
    """Register the archive as a new version. ``known`` are the versions that exist before it."""

    verb = "register"
    model_id: str
    known: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CreateEndpoint(Action):
    verb = "create"
    endpoint_id: str


@dataclass(frozen=True, kw_only=True)
class Deploy(Action):
    """Deploy a version to the endpoint. ``version_id`` None: the version that this plan registers."""

    verb = "deploy"
    deployed_id: str
    model_id: str
    version_id: str | None
    split: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Resize(Action):
    """Change a deployed model's replica counts or autoscaling targets."""

    verb = "resize"
    deployed_id: str


@dataclass(frozen=True, kw_only=True)
class Smoke(Action):
    """Send requests until this deployed model has drawn, and check its picture. Changes nothing."""

    verb = "smoke"
    changes = False
    deployed_id: str


@dataclass(frozen=True, kw_only=True)
class Traffic(Action):
    """Write the traffic split and the roles in one call. ``roles`` None: remove marquee's role labels.

    ``proved`` is the deployed model that passed this plan's smoke test, if the plan has one.
    """

    verb = "traffic"
    split: dict[str, int]
    roles: Roles | None
    command: str
    proved: str | None = None


@dataclass(frozen=True, kw_only=True)
class MakeDefault(Action):
    """Make a version the one that is used when no version is named."""

    verb = "default"
    model_id: str
    version_id: str | None


@dataclass(frozen=True, kw_only=True)
class Undeploy(Action):
    """Undeploy a model; ``split`` is the traffic afterwards."""

    verb = "undeploy"
    deployed_id: str
    split: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DeleteEndpoint(Action):
    verb = "delete"
    endpoint_id: str


@dataclass(frozen=True, kw_only=True)
class DeleteModel(Action):
    """Delete the model with all its versions."""

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
    """One deployed model's share before and after the plan, in percent; ``after`` None: it is undeployed."""

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
    """The actions of a command, in order, and their effect on each deployed model of the endpoint.

    ``on_failure`` replaces the remaining actions when the new model fails; it skips resources that were not
    made yet. ``left`` lists resources that stay because they are not marquee's. ``price`` is the price of one
    replica (None: not in the table); ``min_dollars`` and ``max_dollars`` are the costs per hour of the
    minimum and the maximum number of replicas; ``running_dollars`` is the endpoint's present cost per hour.
    ``split_before`` is the traffic that the plan was made for, in percent by deployed model id. The last
    three are for a deploy: its deployed model, that model's version (None: registered by the plan) and the
    archive's place.
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
        """The plan as values for a JSON document."""
        lists = {
            "actions": [_document(action) for action in self.actions],
            "on_failure": [_document(action) for action in self.on_failure],
        }
        return {**dataclasses.asdict(self), **lists, "changes": self.changes}


def _document(action: Action) -> dict[str, Any]:
    return {"verb": action.verb, **dataclasses.asdict(action)}
