"""Proof of weights: what each deployed model loaded, against its version and the archive."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipeline.client.vertex import VertexEndpoint
from pipeline.deploy.answers import explained
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import WEIGHTS_LABEL, short
from pipeline.deploy.smoke import open_endpoint
from pipeline.deploy.survey import Survey, survey
from pipeline.errors import MarqueeError


@dataclass(frozen=True)
class Verified:
    """One deployed model's weights as they are in memory (SHA-256 in hex), and what they agree with."""

    deployed_model_id: str
    loaded_digest: str
    compared_with: str


def verify(connection: Connection, config: DeployConfig, archive: ArchiveFile) -> tuple[Verified, ...]:
    """Ask every deployed model that has traffic, newest first. Raises MarqueeError on any mismatch.

    The newest must hold the archive's weights; each must hold those that its version was registered with.
    """
    found = survey(connection, config)
    if found.endpoint is None or not found.deployed:
        raise MarqueeError(
            f"endpoint {config.endpoint} has no deployed model to verify", cure="marquee deploy"
        )
    reachable = {model_id for model_id, share in found.traffic.items() if share}
    loaded = _loaded(open_endpoint(connection, found.endpoint), reachable, config.smoke.seconds)
    newest = next(model.id for model in reversed(found.deployed) if model.id in reachable)
    checked = [_against_archive(newest, loaded[newest], archive)]
    checked += [_against_version(connection, found, each, loaded[each]) for each in sorted(loaded)]
    return tuple(checked)


def _loaded(endpoint: VertexEndpoint, reachable: set[str], seconds: float) -> dict[str, str]:
    """The weights digest by deployed model, asked until each has answered."""
    loaded: dict[str, str] = {}
    end = time.monotonic() + seconds
    while set(loaded) != reachable:
        if time.monotonic() > end:
            raise MarqueeError(
                f"deployed models {sorted(reachable - set(loaded))} gave no answer in {seconds:g} s"
            )
        described, served_by = endpoint.describe()
        loaded[served_by] = str(described.get("weights_digest"))
    return loaded


def _against_archive(deployed_id: str, loaded: str, archive: ArchiveFile) -> Verified:
    if loaded != archive.weights_digest:
        raise MarqueeError(
            f"deployed model {deployed_id} runs weights {loaded[:12]}, but {archive.path} holds "
            f"{archive.weights_digest[:12]}",
            cure="deploy this archive, or verify with the one that was deployed",
        )
    return Verified(deployed_id, loaded, str(archive.path))


def _against_version(connection: Connection, found: Survey, deployed_id: str, loaded: str) -> Verified:
    model = next(model for model in found.deployed if model.id == deployed_id)
    name = f"{model.model.partition('@')[0]}@{model.model_version_id or model.model.rpartition('@')[2]}"
    with explained("reading the registered version"):
        registered = connection.models.get_model(name=name).labels.get(WEIGHTS_LABEL, "")
    if registered and short(loaded) != registered:
        raise MarqueeError(
            f"deployed model {deployed_id} runs weights {loaded[:12]}, but its version was registered with "
            f"{registered[:12]}: the endpoint does not serve what was uploaded",
            cure="deploy the archive again; if it stays so, its handler loads something else",
        )
    return Verified(deployed_id, loaded, f"version {name.rpartition('@')[2]} as registered")
