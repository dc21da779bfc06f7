"""The archive in the Model Registry: a new version of its model, or the one that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.deploy.answers import explained
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import ARCHIVE_LABEL, MANAGED, WEIGHTS_LABEL, short
from pipeline.deploy.operations import await_running, wait
from pipeline.deploy.survey import survey
from pipeline.progress import Progress
from pipeline.rules import parse_prebuilt

_READY = ["python", "/opt/marquee/health.py"]  # pipeline/containers/image_files

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Model, ModelContainerSpec


def register(
    connection: Connection, config: DeployConfig, archive: ArchiveFile, artifact_uri: str, progress: Progress
) -> Model:
    """The version of this archive and image; registering twice gives the same one."""
    from google.cloud.aiplatform_v1.types import UploadModelRequest

    name = connection.model_name(config.model)
    with explained(f"registering {config.model}"):
        await_running(connection, name, progress)
        found = survey(connection, config)
        known = found.version_of(archive, config.image_uri)
        if known is not None:
            return known
        place = {"parent_model": name} if found.versions else {"model_id": config.model}
        request = UploadModelRequest(
            parent=connection.location, model=wanted_model(config, archive, artifact_uri), **place
        )
        operation = connection.models.upload_model(request=request)
        answer = wait(operation, f"registering {config.model}", progress)
        return connection.models.get_model(name=f"{answer.model}@{answer.model_version_id}")


def wanted_model(config: DeployConfig, archive: ArchiveFile, artifact_uri: str) -> Model:
    """The Model message for an archive; its digests travel as labels."""
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
    """A prebuilt image knows its own routes and takes no probes; marquee's own is told all of it."""
    from google.cloud.aiplatform_v1.types import ModelContainerSpec, Port, Probe

    timeout = {"seconds": config.deployment_timeout} if config.deployment_timeout else None
    if parse_prebuilt(config.image_uri):
        return ModelContainerSpec(image_uri=config.image_uri, deployment_timeout=timeout)
    # /ping is 200 while the worker still loads; the image's own check asks the model itself.
    ready = Probe(exec_=Probe.ExecAction(command=_READY), period_seconds=20, timeout_seconds=15)
    return ModelContainerSpec(
        image_uri=config.image_uri,
        deployment_timeout=timeout,
        predict_route="/predictions/model",
        health_route="/ping",
        ports=[Port(container_port=8080)],
        startup_probe=ready if config.container == "marquee" else None,
    )
