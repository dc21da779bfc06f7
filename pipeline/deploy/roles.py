"""Which part each deployed model plays: in service, canary or predecessor; kept as labels of the endpoint.

The labels are written in the same call as the traffic, so that the two never disagree.
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
    """Deployed model ids; None where nobody plays the part. A deployed model plays one part at most."""

    in_service: str | None = None
    canary: str | None = None
    predecessor: str | None = None

    def of(self, deployed_id: str) -> str:
        """The part of a deployed model in words, "" when it plays none."""
        names = ("in_service", "canary", "predecessor")
        return next((name.replace("_", " ") for name in names if getattr(self, name) == deployed_id), "")

    def without(self, deployed_id: str) -> Roles:
        """The roles when a deployed model is gone."""
        kept = (None if id_ == deployed_id else id_ for id_ in self.ids)
        return Roles(*kept)

    @property
    def ids(self) -> tuple[str | None, str | None, str | None]:
        return self.in_service, self.canary, self.predecessor


@dataclass(frozen=True)
class Share:
    """A deployed model of ours, as far as roles are derived from it."""

    id: str
    percent: int


def is_labelled(labels: Mapping[str, str]) -> bool:
    """Whether roles were ever written here; an older marquee wrote none."""
    return any(label in labels for label in (*_ROLE_LABELS, COMMAND_LABEL))


def read_roles(labels: Mapping[str, str], ours: Sequence[Share], others_have_traffic: bool) -> Roles:
    """The roles among ``ours`` (oldest first). A label that names a model which is gone says nothing.

    A model with traffic and no role is a canary: a deployment gets its share before its role is written.
    Where none of ours is in service by its label, the largest share is, unless others have traffic.
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
    """The roles as the labels say, of models that are there. One that has two roles has the first of them."""
    roles = Roles(*(id_ if (id_ := labels.get(label)) in ids else None for label in _ROLE_LABELS))
    if roles.canary == roles.in_service:
        roles = replace(roles, canary=None)
    return replace(roles, predecessor=None) if roles.of(roles.predecessor or "") != "predecessor" else roles


def are_written(labels: Mapping[str, str], roles: Roles) -> bool:
    """Whether the labels say exactly these roles."""
    return is_labelled(labels) and tuple(labels.get(label) for label in _ROLE_LABELS) == roles.ids


def _derived(ours: Sequence[Share], others_have_traffic: bool) -> Roles:
    """From the traffic alone: the largest share serves, the newest other with traffic is the canary."""
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
    """The label that says that the right picture of this deployed model was seen."""
    return _PROVED_PREFIX + deployed_id


def with_roles(
    labels: Mapping[str, str], roles: Roles, command: str, created: Mapping[str, str], proved: Collection[str]
) -> dict[str, str]:
    """``labels`` with these roles; others' labels stay as they are.

    ``created`` gives the time of creation of each deployed model that is there, the value of its proof: an
    id may be used again after an undeploy, and a proof is of one deployed model only.
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
    """``labels`` without any of marquee's notes on roles and proofs."""
    noted = (*_ROLE_LABELS, COMMAND_LABEL)
    return {
        key: value for key, value in labels.items() if key not in noted and not key.startswith(_PROVED_PREFIX)
    }
