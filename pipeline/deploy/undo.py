"""Taking back what a failed deployment made, and the container's own words about why it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import is_ours
from pipeline.deploy.operations import await_running, wait
from pipeline.deploy.rollout import undeploy, with_share
from pipeline.deploy.survey import find_endpoint, model_versions
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Endpoint, Model

_LOG_LINES = 20


def undo(
    connection: Connection, config: DeployConfig, version: Model, deployed_id: str, progress: Progress
) -> list[str]:
    """Remove the deployed model, then the endpoint and the version if nothing uses them. Returns what went.

    The archive stays in its bucket: it costs little, and the next try need not send it again.
    """
    gone = []
    name = connection.endpoint_name(config.endpoint)
    await_running(connection, name, progress)
    endpoint = find_endpoint(connection, config.endpoint)
    if endpoint is not None and any(model.id == deployed_id for model in endpoint.deployed_models):
        undeploy(connection, config.endpoint, deployed_id, split_without(endpoint, deployed_id), progress)
        gone.append(f"deployed model {deployed_id}")
        endpoint = find_endpoint(connection, config.endpoint)
    if endpoint is not None and not endpoint.deployed_models and is_ours(endpoint.labels):
        wait(connection.endpoints.delete_endpoint(name=name), "deleting the endpoint", progress)
        gone.append(f"endpoint {config.endpoint}")
    if not version.deployed_models:
        gone += _remove_version(connection, config, version, progress)
    return gone


def split_without(endpoint: Endpoint, model_id: str) -> dict[str, int]:
    """The traffic once ``model_id`` is gone: in proportion, or all to another model when it had it all."""
    shares = with_share(endpoint.traffic_split, model_id, 0)
    shares.pop(model_id)
    others = [model.id for model in endpoint.deployed_models if model.id != model_id]
    return shares if shares or not others else {others[-1]: 100}


def _remove_version(
    connection: Connection, config: DeployConfig, version: Model, progress: Progress
) -> list[str]:
    name = connection.model_name(config.model)
    fresh = connection.models.get_model(name=f"{name}@{version.version_id}")
    if fresh.deployed_models or not is_ours(fresh.labels):
        return []
    if len(model_versions(connection, config.model)) == 1:
        wait(connection.models.delete_model(name=name), "deleting the model", progress)
        return [f"model {config.model}"]
    if "default" in fresh.version_aliases:
        return []
    operation = connection.models.delete_model_version(name=f"{name}@{version.version_id}")
    wait(operation, "deleting the version", progress)
    return [f"version {version.version_id} of model {config.model}"]


def container_lines(connection: Connection, endpoint_id: str, deployed_id: str) -> list[str]:
    """The last lines of a deployed model's containers from Cloud Logging; empty when they cannot be had.

    The local cloud puts them into the operation's error instead.
    """
    import httpx

    if connection.cloud == "local":
        return []
    query = (
        'resource.type="aiplatform.googleapis.com/Endpoint" '
        f'resource.labels.endpoint_id="{endpoint_id}" labels.deployed_model_id="{deployed_id}"'
    )
    body = {
        "resourceNames": [f"projects/{connection.project}"],
        "filter": query,
        "orderBy": "timestamp desc",
        "pageSize": _LOG_LINES,
    }
    try:
        answer = connection.web.post(
            f"{connection.service_url('logging')}/v2/entries:list", json=body, timeout=30
        )
        entries = answer.json().get("entries", []) if answer.status_code == 200 else []
    except (httpx.TransportError, ValueError):
        return []
    return [
        str(e.get("textPayload") or e.get("jsonPayload", {}).get("message", "")) for e in reversed(entries)
    ]
