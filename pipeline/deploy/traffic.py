"""After a canary: promote it, or roll back to the model before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.deploy.answers import explained
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.operations import await_running
from pipeline.deploy.rollout import set_traffic, undeploy
from pipeline.deploy.survey import survey
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import DeployedModel


def promote(connection: Connection, config: DeployConfig, progress: Progress) -> DeployedModel:
    """All traffic to the newest deployed model, the default version from now on; the others go."""
    newest, *others = _deployed(connection, config, progress)
    _settle(connection, config, newest, others, progress)
    return newest


def rollback(connection: Connection, config: DeployConfig, progress: Progress) -> DeployedModel:
    """All traffic to the model before the newest, which goes. Raises MarqueeError when there is none."""
    newest, *others = _deployed(connection, config, progress)
    if not others:
        raise MarqueeError(
            f"endpoint {config.endpoint} has only deployed model {newest.id}: nothing to roll back to",
            cure="deploy an older archive again",
        )
    _settle(connection, config, others[0], [newest], progress)
    return others[0]


def _deployed(connection: Connection, config: DeployConfig, progress: Progress) -> list[DeployedModel]:
    """Newest first."""
    with explained("waiting for the endpoint"):
        await_running(connection, connection.endpoint_name(config.endpoint), progress)
    deployed = list(reversed(survey(connection, config).deployed))
    if not deployed:
        raise MarqueeError(f"endpoint {config.endpoint} has no deployed model", cure="marquee deploy")
    return deployed


def _settle(
    connection: Connection,
    config: DeployConfig,
    chosen: DeployedModel,
    leaving: list[DeployedModel],
    progress: Progress,
) -> None:
    with explained("moving the traffic"):
        set_traffic(connection, config.endpoint, {chosen.id: 100})
        version = connection.models.get_model(name=_version_name(chosen))
        if "default" not in version.version_aliases:
            connection.models.merge_version_aliases(name=_version_name(chosen), version_aliases=["default"])
        for model in leaving:
            undeploy(connection, config.endpoint, model.id, {chosen.id: 100}, progress)


def _version_name(model: DeployedModel) -> str:
    return f"{model.model.partition('@')[0]}@{model.model_version_id or model.model.rpartition('@')[2]}"
