"""Compares the weights that each deployed model loaded with its version and with the archive."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipeline.client.retries import Patience, with_retries
from pipeline.client.vertex import Reply, VertexEndpoint
from pipeline.deploy.answers import translating_google_errors
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.inventory import Serving
from pipeline.deploy.labels import WEIGHTS_LABEL, short
from pipeline.deploy.places import serving_list
from pipeline.deploy.smoke import find_client
from pipeline.deploy.survey import survey
from pipeline.errors import MarqueeError


@dataclass(frozen=True)
class Verified:
    """The digest of a deployed model's weights in memory (SHA-256 in hex), and what it was compared with."""

    deployed_model_id: str
    loaded_digest: str
    compared_with: str


def verify(connection: Connection, config: DeployConfig, archive: ArchiveFile) -> tuple[Verified, ...]:
    """Verify every deployed model of marquee's that has traffic. Raises MarqueeError on any mismatch.

    The newest must hold the archive's weights. Each must hold the weights of its registered version.
    """
    endpoint = survey(connection, config).endpoint
    if endpoint is None or not endpoint.our_models:
        raise MarqueeError(
            f"endpoint {config.endpoint} has no deployed model of marquee's to verify", cure="marquee deploy"
        )
    asked = {model.id: model for model in endpoint.our_models if model.share}
    if not asked:
        raise MarqueeError(
            f"no deployed model of marquee's on endpoint {config.endpoint} has traffic: "
            f"{serving_list(endpoint.our_models)}; requests do not reach a model without traffic",
            cure="give it traffic: marquee deploy, promote or rollback",
        )
    loaded = _loaded(find_client(connection, config.endpoint), set(asked), config.smoke.seconds)
    newest = list(asked)[-1]
    checked = [_against_archive(newest, loaded[newest], archive)]
    checked += [_against_version(connection, asked[id_], loaded[id_]) for id_ in sorted(loaded)]
    return tuple(checked)


def _loaded(endpoint: VertexEndpoint, asked: set[str], seconds: float) -> dict[str, str]:
    """Send requests until each model of ``asked`` has answered; returns the weights digest of each."""
    loaded: dict[str, str] = {}
    body = {"instances": [{"describe": True}]}
    end = time.monotonic() + seconds
    while set(loaded) != asked:
        left = end - time.monotonic()
        if left <= 0:
            raise MarqueeError(
                f"deployed models {', '.join(sorted(asked - set(loaded)))} gave no answer in {seconds:g} s",
                cure="run it again, or give it longer: --set smoke.seconds=600",
            )
        patience = Patience(deadline_seconds=max(1.0, left), attempts=30)
        reply = with_retries(lambda seconds: _of_a_model(endpoint.exchange(body, seconds)), patience)
        if reply.served_by in asked:
            loaded[reply.served_by] = _digest_in(reply)
    return loaded


def _of_a_model(reply: Reply) -> Reply:
    """The reply; raises PredictionError if it came from no model, so that the request is repeated."""
    if not reply.served_by or reply.status in (429, 503):
        reply.document()
    return reply


def _digest_in(reply: Reply) -> str:
    document = reply.document()
    predictions = document.get("predictions") if isinstance(document, dict) else None
    if not isinstance(predictions, list) or not predictions or not isinstance(predictions[0], dict):
        raise MarqueeError(
            f"deployed model {reply.served_by} does not describe itself; is it an archive of marquee's?"
        )
    return str(predictions[0].get("weights_digest"))


def _against_archive(deployed_id: str, loaded: str, archive: ArchiveFile) -> Verified:
    if loaded != archive.weights_digest:
        raise MarqueeError(
            f"deployed model {deployed_id} runs weights {loaded[:12]}, but {archive.path} holds "
            f"{archive.weights_digest[:12]}",
            cure="deploy this archive, or verify with the one that was deployed",
        )
    return Verified(deployed_id, loaded, str(archive.path))


def _against_version(connection: Connection, model: Serving, loaded: str) -> Verified:
    with translating_google_errors("reading the registered version"):
        name = f"{connection.model_name(model.model_id)}@{model.version_id}"
        registered = connection.models.get_model(name=name).labels.get(WEIGHTS_LABEL, "")
    if registered and short(loaded) != registered:
        raise MarqueeError(
            f"deployed model {model.id} runs weights {loaded[:12]}, but its version was registered with "
            f"{registered[:12]}: the endpoint does not serve what was uploaded",
            cure="deploy the archive again; if the error stays, the archive's handler loads other weights",
        )
    return Verified(model.id, loaded, f"version {model.version_id} as registered")
