"""Reads what already exists of a deployment, once, and turns it into values of ``inventory.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.deploy.answers import translating_google_errors
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.inventory import (
    FoundBucket,
    FoundEndpoint,
    Inventory,
    Serving,
    StoredArchive,
    StoredObject,
    Version,
)
from pipeline.deploy.labels import (
    ARCHIVE_LABEL,
    ARCHIVE_MARK,
    PROVED_LABEL,
    WEIGHTS_LABEL,
    folder_of,
    is_ours,
)
from pipeline.deploy.machines import hardware_of, price_of, scaling_of
from pipeline.deploy.operations import await_running
from pipeline.deploy.roles import COMMAND_LABEL, Share, are_written, proof_key, read_roles
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import DeployedModel, Endpoint, Model


def survey_settled(connection: Connection, config: DeployConfig, progress: Progress) -> Inventory:
    """Wait for the operations that an interrupted run began, then ``survey``."""
    with translating_google_errors("waiting for what an earlier run began"):
        await_running(connection, connection.model_name(config.model), progress)
        await_running(connection, connection.endpoint_name(config.endpoint), progress)
    return survey(connection, config)


def survey(connection: Connection, config: DeployConfig) -> Inventory:
    """Read the model's versions and the endpoint with what is deployed on it."""
    with translating_google_errors("looking at what is there"):
        messages = model_versions(connection, config.model)
        endpoint = find_endpoint(connection, config.endpoint)
        known = {(config.model, message.version_id): message for message in messages}
        found = _endpoint(connection, config, endpoint, known) if endpoint is not None else None
    return Inventory(tuple(_version(config.model, message) for message in messages), found)


def model_versions(connection: Connection, model_id: str) -> tuple[Model, ...]:
    """Every version of a model, oldest first; empty when there is no such model."""
    from google.api_core.exceptions import NotFound

    try:
        found = list(connection.models.list_model_versions(name=connection.model_name(model_id)))
    except NotFound:
        return ()
    return tuple(sorted(found, key=lambda model: int(model.version_id)))


def find_endpoint(connection: Connection, endpoint_id: str) -> Endpoint | None:
    from google.api_core.exceptions import NotFound

    try:
        return connection.endpoints.get_endpoint(name=connection.endpoint_name(endpoint_id))
    except NotFound:
        return None


def survey_archive(connection: Connection, config: DeployConfig, archive: ArchiveFile) -> StoredArchive:
    """Whether the archive's object exists and holds the same bytes as the archive."""
    folder = folder_of(config.model, archive.archive_digest)
    uri = f"gs://{config.bucket_name}/{folder}/model.mar"
    with translating_google_errors("looking into the bucket"):
        bucket = connection.storage.lookup_bucket(config.bucket_name)
        blob = bucket.get_blob(f"{folder}/model.mar") if bucket is not None else None
    matches = None if blob is None else (blob.crc32c, blob.size) == (archive.crc32c, archive.size)
    return StoredArchive(uri, config.bucket_name, bucket is not None, matches)


def survey_bucket(connection: Connection, config: DeployConfig) -> FoundBucket | None:
    """The bucket with the archives of this model; None when there is none."""
    with translating_google_errors("looking into the bucket"):
        bucket = connection.storage.lookup_bucket(config.bucket_name)
        if bucket is None:
            return None
        prefix = f"marquee/{config.model}/"
        blobs = list(bucket.list_blobs(prefix=prefix))
        others = any(
            not blob.name.startswith(prefix) for blob in bucket.list_blobs(max_results=len(blobs) + 1)
        )
    archives = tuple(
        StoredObject(
            f"gs://{bucket.name}/{blob.name}", blob.generation, ARCHIVE_MARK in (blob.metadata or {})
        )
        for blob in blobs
    )
    return FoundBucket(bucket.name, is_ours(bucket.labels), archives, others)


def _version(model_id: str, message: Model) -> Version:
    return Version(
        model_id=model_id,
        version_id=message.version_id,
        ours=is_ours(message.labels),
        archive_digest=message.labels.get(ARCHIVE_LABEL, ""),
        weights_digest=message.labels.get(WEIGHTS_LABEL, ""),
        image_uri=message.container_spec.image_uri,
        artifact_uri=message.artifact_uri,
        aliases=tuple(message.version_aliases),
        created=message.version_create_time,
        deployed_on=tuple(reference.endpoint.rpartition("/")[2] for reference in message.deployed_models),
    )


def _endpoint(
    connection: Connection,
    config: DeployConfig,
    endpoint: Endpoint,
    known: dict[tuple[str, str], Model],
) -> FoundEndpoint:
    split, labels = dict(endpoint.traffic_split), dict(endpoint.labels)
    ordered = sorted(endpoint.deployed_models, key=lambda model: model.create_time)
    deployed = tuple(
        _serving(model, _version_message(connection, model, known), split, labels, config.region)
        for model in ordered
    )
    shares = [Share(model.id, model.share) for model in deployed if model.ours]
    theirs = any(model.share for model in deployed if not model.ours)
    roles = read_roles(labels, shares, theirs)
    return FoundEndpoint(
        id=config.endpoint,
        name=endpoint.name,
        ours=is_ours(labels),
        dedicated=endpoint.dedicated_endpoint_enabled,
        deployed=deployed,
        roles=roles,
        labelled=are_written(labels, roles),
        last_command=labels.get(COMMAND_LABEL, ""),
    )


def _version_message(
    connection: Connection, deployed: DeployedModel, known: dict[tuple[str, str], Model]
) -> Model | None:
    """The deployed version; None when it cannot be read, which means that it is not marquee's."""
    from google.api_core.exceptions import Forbidden, NotFound

    key = model_and_version(deployed)
    own = deployed.model.startswith("projects/") and key in known and _same_place(deployed, known[key])
    if own:
        return known[key]
    try:
        return connection.models.get_model(name=f"{deployed.model.partition('@')[0]}@{key[1]}")
    except (NotFound, Forbidden):
        return None


def _same_place(deployed: DeployedModel, version: Model) -> bool:
    """Whether both belong to the same model: models of two projects may have the same name."""
    return deployed.model.partition("@")[0] == version.name.partition("@")[0]


def model_and_version(deployed: DeployedModel) -> tuple[str, str]:
    """The model's id and the version's number."""
    name, _, version = deployed.model.partition("@")
    return name.rpartition("/")[2], deployed.model_version_id or version


def _serving(
    model: DeployedModel,
    version: Model | None,
    split: Mapping[str, int],
    labels: Mapping[str, str],
    region: str,
) -> Serving:
    model_id, version_id = model_and_version(model)
    noted = dict(version.labels) if version is not None else {}
    # Older marquees wrote the proof on the version, for one of its deployed models.
    proved = labels.get(proof_key(model.id)) == created_text(model) or noted.get(PROVED_LABEL) == model.id
    return Serving(
        id=model.id,
        model_id=model_id,
        version_id=version_id,
        ours=is_ours(noted),
        share=split.get(model.id, 0),
        hardware=hardware_of(model),
        scaling=scaling_of(model),
        dollars=price_of(model, region),
        proved=proved,
        created=model.create_time,
        is_default=version is not None and "default" in version.version_aliases,
        available_replicas=model.status.available_replica_count if model.status else 0,
    )


def created_text(model: DeployedModel) -> str:
    """When a deployed model was created, as a label's value: microseconds since 1970."""
    return str(round(model.create_time.timestamp() * 1_000_000))
