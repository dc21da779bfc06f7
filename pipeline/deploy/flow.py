"""Deploy: upload, register, endpoint, rollout, smoke, traffic. Each step finds what an earlier run did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.deploy.answers import Unanswered, explained
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import PROVED_LABEL
from pipeline.deploy.register import register
from pipeline.deploy.rollout import (
    ensure_deployed,
    ensure_endpoint,
    set_traffic,
    undeploy,
    wanted_id,
    with_share,
)
from pipeline.deploy.smoke import Proof, find_client, prove
from pipeline.deploy.undo import container_lines, undo
from pipeline.deploy.upload import Uploaded, upload_archive
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Model


@dataclass(frozen=True)
class Deployed:
    """What deploy ends with. ``traffic`` is percent by deployed model id; ``kept`` ones only cost."""

    uploaded: Uploaded
    model: str
    version: str
    endpoint: str
    deployed_model_id: str
    proof: Proof
    traffic: dict[str, int]
    kept: tuple[str, ...]


def deploy(
    connection: Connection, config: DeployConfig, archive: ArchiveFile, progress: Progress
) -> Deployed:
    """The whole way. Raises MarqueeError with the container's words, having taken back what it made."""
    uploaded = upload_archive(connection, archive, config.bucket_name, config.model, progress)
    version = register(connection, config, archive, uploaded.artifact_uri, progress)
    try:
        ensure_endpoint(connection, config, progress)
        ensure_deployed(connection, config, version, progress)
        proof = smoke(connection, config, version, archive, progress)
        mark_proved(connection, config, version)
    except Unanswered:  # nothing has failed; taking back what still runs would waste it
        raise
    except MarqueeError as error:
        if is_proved(config, version):  # it was in service before this run, and stays so
            raise
        raise _taken_back(connection, config, version, error, progress) from error
    traffic, kept = move_traffic(connection, config, version, progress)
    return Deployed(
        uploaded=uploaded,
        model=config.model,
        version=version.version_id,
        endpoint=config.endpoint,
        deployed_model_id=proof.deployed_model_id,
        proof=proof,
        traffic=traffic,
        kept=kept,
    )


def smoke(
    connection: Connection, config: DeployConfig, version: Model, archive: ArchiveFile, progress: Progress
) -> Proof:
    """The picture of the new deployed model; see ``pipeline.deploy.smoke``."""
    progress.note("asking the new model for its first picture")
    client = find_client(connection, config.endpoint)
    return prove(client, config.smoke, archive, wanted_id(config, version), progress)


def is_proved(config: DeployConfig, version: Model) -> bool:
    """Whether an earlier run has seen the right picture of this version on this hardware."""
    return version.labels.get(PROVED_LABEL) == wanted_id(config, version)


def mark_proved(connection: Connection, config: DeployConfig, version: Model) -> None:
    if is_proved(config, version):
        return
    from google.cloud.aiplatform_v1.types import Model

    name = f"{connection.model_name(config.model)}@{version.version_id}"
    labels = {**version.labels, PROVED_LABEL: wanted_id(config, version)}
    with explained("noting that the picture was right"):
        connection.models.update_model(
            model=Model(name=name, labels=labels), update_mask={"paths": ["labels"]}
        )


def move_traffic(
    connection: Connection, config: DeployConfig, version: Model, progress: Progress
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Give the new model its share. At 100 % it becomes the default, and only its predecessor stays."""
    new = wanted_id(config, version)
    with explained("moving the traffic"):
        endpoint = connection.endpoints.get_endpoint(name=connection.endpoint_name(config.endpoint))
        before = dict(endpoint.traffic_split)
        after = with_share(before, new, config.traffic)
        if after != before:
            set_traffic(connection, config.endpoint, after)
        if after != {new: 100}:
            return after, ()
        if "default" not in version.version_aliases:
            name = f"{connection.model_name(config.model)}@{version.version_id}"
            connection.models.merge_version_aliases(name=name, version_aliases=["default"])
        return after, _retire(connection, config.endpoint, new, progress)


def _retire(connection: Connection, endpoint_id: str, new: str, progress: Progress) -> tuple[str, ...]:
    """Undeploy all but the new model and the one before it, which stays for `marquee rollback`."""
    endpoint = connection.endpoints.get_endpoint(name=connection.endpoint_name(endpoint_id))
    others = sorted((m for m in endpoint.deployed_models if m.id != new), key=lambda model: model.create_time)
    for model in others[:-1]:
        undeploy(connection, endpoint_id, model.id, endpoint.traffic_split, progress)
    return tuple(model.id for model in others[-1:])


def _taken_back(
    connection: Connection, config: DeployConfig, version: Model, error: MarqueeError, progress: Progress
) -> MarqueeError:
    deployed_id = wanted_id(config, version)
    lines = container_lines(connection, config.endpoint, deployed_id)
    with explained("taking back what was made"):
        gone = undo(connection, config, version, deployed_id, progress)
    told = "".join(f"\n  container: {line}" for line in lines)
    taken = f"\n  taken back: {', '.join(gone)}" if gone else ""
    return MarqueeError(f"{error}{told}{taken}", cure=error.cure)
