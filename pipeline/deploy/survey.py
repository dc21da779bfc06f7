"""What of a deployment is already there: read once, changed by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.deploy.answers import explained
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import ARCHIVE_LABEL, folder_of, is_ours, short
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import DeployedModel, Endpoint, Model


@dataclass(frozen=True)
class Survey:
    """The model's versions (oldest first) and the endpoint; None where there is none."""

    versions: tuple[Model, ...]
    endpoint: Endpoint | None

    @property
    def deployed(self) -> tuple[DeployedModel, ...]:
        """The endpoint's deployed models, oldest first."""
        models = self.endpoint.deployed_models if self.endpoint else []
        return tuple(sorted(models, key=lambda model: model.create_time))

    @property
    def traffic(self) -> dict[str, int]:
        return dict(self.endpoint.traffic_split) if self.endpoint else {}

    def version_of(self, archive: ArchiveFile, image_uri: str) -> Model | None:
        """The newest version registered from this archive for this image."""
        for version in reversed(self.versions):
            same_archive = version.labels.get(ARCHIVE_LABEL) == short(archive.archive_digest)
            if same_archive and version.container_spec.image_uri == image_uri:
                return version
        return None


def survey(connection: Connection, config: DeployConfig) -> Survey:
    """Read the model's versions and the endpoint. Raises MarqueeError when the model is somebody else's."""
    with explained("looking at what is there"):
        versions = model_versions(connection, config.model)
        endpoint = find_endpoint(connection, config.endpoint)
    if versions and not is_ours(versions[-1].labels):
        raise MarqueeError(
            f"model {config.model} exists in {connection.project} and was not made by marquee",
            cure="choose another name: model in deploy.yaml",
        )
    return Survey(versions, endpoint)


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


def archive_is_there(connection: Connection, config: DeployConfig, archive: ArchiveFile) -> bool:
    """Whether the archive's object exists with its very checksum."""
    with explained("looking into the bucket"):
        bucket = connection.storage.lookup_bucket(config.bucket_name)
        if bucket is None:
            return False
        blob = bucket.get_blob(f"{folder_of(config.model, archive.archive_digest)}/model.mar")
    return blob is not None and blob.crc32c == archive.crc32c
