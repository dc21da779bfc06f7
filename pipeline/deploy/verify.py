"""Proof of weights: what a deployment really loaded, compared with the archive or the registry."""

from __future__ import annotations

from dataclasses import dataclass

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
    """One deployed model's weights as loaded in memory (SHA-256 in hex), and what they were compared with."""

    deployed_model_id: str
    loaded_digest: str
    compared_with: str


def verify(connection: Connection, config: DeployConfig, archive: ArchiveFile | None) -> Verified:
    """Ask the endpoint what it loaded. Raises MarqueeError on any mismatch.

    With an archive, its digest must be the loaded one; always, the registered version's label must be.
    """
    found = survey(connection, config)
    if found.endpoint is None or not found.deployed:
        raise MarqueeError(
            f"endpoint {config.endpoint} has no deployed model to verify", cure="marquee deploy"
        )
    described, served_by = open_endpoint(connection, found.endpoint).describe()
    loaded = str(described.get("weights_digest"))
    registered = _registered_digest(connection, found, served_by)
    if registered and not loaded.startswith(registered):
        raise MarqueeError(
            f"deployed model {served_by} runs weights {loaded[:12]}, but its version was registered with "
            f"{registered[:12]}: the endpoint does not serve what was uploaded",
            cure="deploy the archive again; if it stays so, its handler loads something else",
        )
    if archive is not None and loaded != archive.weights_digest:
        raise MarqueeError(
            f"deployed model {served_by} runs weights {loaded[:12]}, but {archive.path} holds "
            f"{archive.weights_digest[:12]}",
            cure="deploy this archive, or verify with the one that was deployed",
        )
    what = str(archive.path) if archive else "the version's label" if registered else "nothing"
    return Verified(served_by, loaded, what)


def _registered_digest(connection: Connection, found: Survey, deployed_id: str) -> str:
    """The weights label of the version behind a deployed model; empty when it was not registered by marquee."""
    model = next((model for model in found.deployed if model.id == deployed_id), None)
    if model is None:
        return ""
    name = f"{model.model.partition('@')[0]}@{model.model_version_id or model.model.rpartition('@')[2]}"
    with explained("reading the registered version"):
        version = connection.models.get_model(name=name)
    return short(version.labels.get(WEIGHTS_LABEL, ""))
