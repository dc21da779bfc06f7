"""What a survey finds in a cloud, as values. A plan is made from these alone; they name no provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pipeline.deploy.roles import Roles


@dataclass(frozen=True)
class Hardware:
    """A deployed model's machine and accelerator. They cannot be changed while it is deployed."""

    machine: str
    accelerator: str | None
    accelerator_count: int
    spot: bool
    service_account: str

    def __str__(self) -> str:
        accelerator = f" + {self.accelerator_count} x {self.accelerator}" if self.accelerator else ""
        return f"{self.machine}{accelerator}{', spot' if self.spot else ''}"


@dataclass(frozen=True)
class Scaling:
    """Minimum and maximum replicas, and the autoscaling targets by name (see ``config.Autoscaling``)."""

    min_replicas: int
    max_replicas: int
    targets: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Version:
    """A registered version of a model. ``ours``: the version itself carries marquee's label.

    Digests are the first 40 hex digits. ``deployed_on`` names the endpoints that hold the version.
    """

    model_id: str
    version_id: str
    ours: bool
    archive_digest: str
    weights_digest: str
    image_uri: str
    artifact_uri: str
    aliases: tuple[str, ...]
    created: datetime
    deployed_on: tuple[str, ...] = ()

    @property
    def is_default(self) -> bool:
        return "default" in self.aliases


@dataclass(frozen=True)
class Serving:
    """A deployed model. ``ours``: its model version carries marquee's label. ``share`` is in percent.

    ``dollars`` is the price of one replica for an hour, None where the table has no price. ``proved``: an
    earlier run received the right smoke picture from this deployed model. ``is_default``: its version is
    the model's default version.
    """

    id: str
    model_id: str
    version_id: str
    ours: bool
    share: int
    hardware: Hardware
    scaling: Scaling
    dollars: float | None
    proved: bool
    created: datetime
    is_default: bool = False
    available_replicas: int = 0

    @property
    def dollars_per_hour(self) -> float:
        """The cost of the minimum number of replicas; 0 where the price is unknown."""
        return (self.dollars or 0.0) * max(1, self.scaling.min_replicas)

    def __str__(self) -> str:
        theirs = "" if self.ours else ", not marquee's"
        return f"{self.id} ({self.model_id} version {self.version_id}{theirs})"


@dataclass(frozen=True)
class FoundEndpoint:
    """An endpoint with its deployed models, oldest first. ``ours``: it carries marquee's label.

    ``labelled``: its labels hold exactly these roles; otherwise some roles were derived from its traffic.
    """

    id: str
    name: str
    ours: bool
    dedicated: bool
    deployed: tuple[Serving, ...]
    roles: Roles
    labelled: bool
    last_command: str = ""

    @property
    def our_models(self) -> tuple[Serving, ...]:
        return tuple(model for model in self.deployed if model.ours)

    @property
    def foreign(self) -> tuple[Serving, ...]:
        return tuple(model for model in self.deployed if not model.ours)

    @property
    def split(self) -> dict[str, int]:
        """Traffic in percent by deployed model id; models without traffic are left out."""
        return {model.id: model.share for model in self.deployed if model.share}

    def find(self, deployed_id: str) -> Serving | None:
        return next((model for model in self.deployed if model.id == deployed_id), None)


@dataclass(frozen=True)
class StoredArchive:
    """The place of one archive in a bucket. ``matches`` is None where no such object exists."""

    uri: str
    bucket: str
    bucket_exists: bool
    matches: bool | None


@dataclass(frozen=True)
class StoredObject:
    """An object below the model's folder. ``ours``: its metadata says that marquee uploaded it."""

    uri: str
    generation: int
    ours: bool


@dataclass(frozen=True)
class FoundBucket:
    """The facts about a bucket that a teardown needs."""

    name: str
    ours: bool
    archives: tuple[StoredObject, ...] = ()
    holds_more: bool = False


@dataclass(frozen=True)
class Inventory:
    """The model's versions (oldest first) and the endpoint, None if it does not exist."""

    versions: tuple[Version, ...]
    endpoint: FoundEndpoint | None
    stored: StoredArchive | None = field(default=None)

    @property
    def deployed(self) -> tuple[Serving, ...]:
        """The endpoint's deployed models, oldest first."""
        return self.endpoint.deployed if self.endpoint else ()

    @property
    def traffic(self) -> dict[str, int]:
        return self.endpoint.split if self.endpoint else {}

    def version_of(self, archive_digest: str, image_uri: str) -> Version | None:
        """The newest version of ours that was registered from this archive for this image."""
        for version in reversed(self.versions):
            if version.ours and (version.archive_digest, version.image_uri) == (archive_digest, image_uri):
                return version
        return None
