"""Registers the archive in the Model Registry as a new version of its model."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pipeline.deploy.answers import Unanswered
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import ARCHIVE_LABEL, MANAGED, WEIGHTS_LABEL, folder_of, short
from pipeline.deploy.operations import wait
from pipeline.deploy.survey import model_versions
from pipeline.progress import Progress
from pipeline.rules import parse_prebuilt

_READY = ["python", "/opt/marquee/health.py"]  # pipeline/containers/image_files

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Model, ModelContainerSpec


def register(
    connection: Connection,
    config: DeployConfig,
    archive: ArchiveFile,
    known: Collection[str],
    progress: Progress,
) -> str:
    """Register the archive; returns the new version's number.

    Raises Unanswered when the model no longer has exactly the versions ``known``: another run is at work.
    """
    from google.cloud.aiplatform_v1.types import UploadModelRequest

    name = connection.model_name(config.model)
    now = [model.version_id for model in model_versions(connection, config.model)]
    if now != list(known):
        raise Unanswered(
            f"model {config.model} was registered by another run in the meantime: versions {', '.join(now)}",
            cure="run it again: it continues from those versions",
        )
    place = {"parent_model": name} if known else {"model_id": config.model}
    artifact_uri = f"gs://{config.bucket_name}/{folder_of(config.model, archive.archive_digest)}"
    request = UploadModelRequest(
        parent=connection.location, model=wanted_model(config, archive, artifact_uri), **place
    )
    operation = connection.models.upload_model(request=request)
    answer = wait(connection, operation, f"registering {config.model}", progress)
    return str(answer.model_version_id)


def wanted_model(config: DeployConfig, archive: ArchiveFile, artifact_uri: str) -> Model:
    """The Model message for an archive, with its digests as labels."""
    from google.cloud.aiplatform_v1.types import Model

    digests = {ARCHIVE_LABEL: short(archive.archive_digest), WEIGHTS_LABEL: short(archive.weights_digest)}
    return Model(
        display_name=config.model,
        description="Stable Diffusion, deployed by marquee",
        version_aliases=[f"archive-{archive.archive_digest[:12]}"],
        version_description=f"weights {archive.weights_digest[:12]}",
        artifact_uri=artifact_uri,
        container_spec=container_spec(config),
        labels={**config.labels, **digests, **MANAGED},
    )


def container_spec(config: DeployConfig) -> ModelContainerSpec:
    """The container of the model: a prebuilt image has fixed routes and probes, marquee's image gets ours."""
    from google.cloud.aiplatform_v1.types import ModelContainerSpec, Port, Probe

    timeout = {"seconds": config.deployment_timeout} if config.deployment_timeout else None
    if parse_prebuilt(config.image_uri):
        return ModelContainerSpec(image_uri=config.image_uri, deployment_timeout=timeout)
    # /ping answers 200 while the worker still loads, so the image's own check asks the model itself.
    ready = Probe(exec_=Probe.ExecAction(command=_READY), period_seconds=20, timeout_seconds=15)
    return ModelContainerSpec(
        image_uri=config.image_uri,
        deployment_timeout=timeout,
        predict_route="/predictions/model",
        health_route="/ping",
        ports=[Port(container_port=8080)],
        startup_probe=ready if config.container == "marquee" else None,
    )
