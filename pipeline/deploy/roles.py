"""The roles of deployed models (in service, canary, predecessor), stored as labels of the endpoint.

The labels are written in the same call as the traffic, so that they always agree with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

IN_SERVICE_LABEL = "marquee-in-service"
CANARY_LABEL = "marquee-canary"
PREDECESSOR_LABEL = "marquee-predecessor"
COMMAND_LABEL = "marquee-last-command"
_PROVED_PREFIX = "marquee-proved-"
_ROLE_LABELS = (IN_SERVICE_LABEL, CANARY_LABEL, PREDECESSOR_LABEL)


@dataclass(frozen=True)
class Roles:
    """The deployed model id in each role, None if there is none. A model has one role at most."""

    in_service: str | None = None
    canary: str | None = None
    predecessor: str | None = None

    def of(self, deployed_id: str) -> str:
        """The role of a deployed model in words, "" if it has none."""
        names = ("in_service", "canary", "predecessor")
        return next((name.replace("_", " ") for name in names if getattr(self, name) == deployed_id), "")

    def without(self, deployed_id: str) -> Roles:
        """The roles after a deployed model is removed."""
        kept = (None if id_ == deployed_id else id_ for id_ in self.ids)
        return Roles(*kept)

    @property
    def ids(self) -> tuple[str | None, str | None, str | None]:
        return self.in_service, self.canary, self.predecessor


@dataclass(frozen=True)
class Share:
    """The facts about a deployed model of ours from which roles are derived."""

    id: str
    percent: int


def is_labelled(labels: Mapping[str, str]) -> bool:
    """Whether the endpoint has role labels; older marquees wrote none."""
    return any(label in labels for label in (*_ROLE_LABELS, COMMAND_LABEL))


def read_roles(labels: Mapping[str, str], ours: Sequence[Share], others_have_traffic: bool) -> Roles:
    """The roles among ``ours`` (oldest first). A label is ignored if its model no longer exists.

    A model with traffic and no role is a canary: a deployment gets its share before its role is written.
    Without a label for "in service", our model with the largest share is in service, unless models of
    others have traffic.
    """
    if not is_labelled(labels):
        return _derived(ours, others_have_traffic)
    roles = _labelled(labels, {share.id for share in ours})
    serving = [share for share in ours if share.percent]
    if roles.in_service is None and serving and not others_have_traffic:
        largest = max(serving, key=lambda share: share.percent).id
        roles = replace(roles.without(largest), in_service=largest)
    in_service, canary, predecessor = roles.ids
    if canary is None:
        taken = {in_service, predecessor}
        free = [share.id for share in ours if share.percent and share.id not in taken]
        canary = free[-1] if free else None
    return Roles(in_service, canary, predecessor)


def _labelled(labels: Mapping[str, str], ids: Collection[str]) -> Roles:
    """The roles in the labels, for models that exist. A model with two roles keeps the first."""
    roles = Roles(*(id_ if (id_ := labels.get(label)) in ids else None for label in _ROLE_LABELS))
    if roles.canary == roles.in_service:
        roles = replace(roles, canary=None)
    return replace(roles, predecessor=None) if roles.of(roles.predecessor or "") != "predecessor" else roles


def are_written(labels: Mapping[str, str], roles: Roles) -> bool:
    """Whether the labels hold exactly these roles."""
    return is_labelled(labels) and tuple(labels.get(label) for label in _ROLE_LABELS) == roles.ids


def _derived(ours: Sequence[Share], others_have_traffic: bool) -> Roles:
    """Roles from the traffic alone: the largest share is in service, the newest other one is the canary."""
    serving = [share for share in ours if share.percent]
    idle = [share for share in ours if not share.percent]
    predecessor = idle[-1].id if idle else None
    if not serving:
        return Roles(predecessor=predecessor)
    if others_have_traffic and len(serving) == 1:
        return Roles(canary=serving[0].id, predecessor=predecessor)
    largest = max(serving, key=lambda share: share.percent)
    rest = [share for share in serving if share is not largest]
    return Roles(largest.id, rest[-1].id if rest else None, predecessor)


def proof_key(deployed_id: str) -> str:
    """The label's key that marks this deployed model as proved."""
    return _PROVED_PREFIX + deployed_id


def with_roles(
    labels: Mapping[str, str], roles: Roles, command: str, created: Mapping[str, str], proved: Collection[str]
) -> dict[str, str]:
    """``labels`` with these roles; labels that are not marquee's stay as they are.

    ``created`` is the creation time of each deployed model. A proof's label holds it as its value: an id may
    be used again after an undeploy, and the proof must not apply to the later model.
    """
    kept = without_roles(labels)
    proofs = {
        proof_key(id_): when
        for id_, when in created.items()
        if id_ in proved or labels.get(proof_key(id_)) == when
    }
    played = {label: id_ for label, id_ in zip(_ROLE_LABELS, roles.ids, strict=True) if id_ is not None}
    return {**kept, **proofs, **played, COMMAND_LABEL: command}


def without_roles(labels: Mapping[str, str]) -> dict[str, str]:
    """``labels`` without marquee's labels for roles and proofs."""
    noted = (*_ROLE_LABELS, COMMAND_LABEL)
    return {
        key: value for key, value in labels.items() if key not in noted and not key.startswith(_PROVED_PREFIX)
    }
