"""Removes what a failed deployment made, and reads the container's log for the reason."""

from __future__ import annotations

from pipeline.deploy import plan as plans
from pipeline.deploy.carry_out import Execution
from pipeline.deploy.connection import Connection
from pipeline.deploy.operations import await_running
from pipeline.deploy.survey import find_endpoint, model_versions

_LOG_LINES = 20


def take_back(run: Execution, on_failure: tuple[plans.Action, ...]) -> list[str]:
    """Carry out the plan's actions for a failure, as far as their resources exist.

    Returns what was removed. The archive stays in its bucket: it costs little, and the next run
    need not send it.
    """
    connection, config = run.connection, run.config
    await_running(connection, connection.endpoint_name(config.endpoint), run.progress)
    target = next(action.deployed_id for action in on_failure if isinstance(action, plans.Undeploy))
    gone = []
    for action in on_failure:
        if _is_there(run, action, target):
            run.carry_out(action)
            gone += [] if isinstance(action, plans.Traffic) else [_in_words(run, action)]
    return gone


def _is_there(run: Execution, action: plans.Action, target: str) -> bool:
    """Whether the action's resource exists and is not in use."""
    if isinstance(action, (plans.Traffic, plans.Undeploy, plans.DeleteEndpoint)):
        endpoint = find_endpoint(run.connection, run.config.endpoint)
        if endpoint is None:
            return False
        deployed = {model.id for model in endpoint.deployed_models}
        return not deployed if isinstance(action, plans.DeleteEndpoint) else target in deployed
    versions = model_versions(run.connection, run.config.model)
    if isinstance(action, plans.DeleteModel):
        return len(versions) == 1 and not versions[0].deployed_models
    number = _number(run, action)
    mine = next((version for version in versions if version.version_id == number), None)
    return mine is not None and not mine.deployed_models and "default" not in mine.version_aliases


def _number(run: Execution, action: plans.Action) -> str | None:
    named = action.version_id if isinstance(action, plans.DeleteVersion) else None
    return named or run.version_id


def _in_words(run: Execution, action: plans.Action) -> str:
    if isinstance(action, plans.DeleteVersion):
        return f"version {_number(run, action)} of model {action.model_id}"
    return action.thing


def container_lines(connection: Connection, endpoint_id: str, deployed_id: str) -> list[str]:
    """The last lines of a deployed model's containers from Cloud Logging; empty when they cannot be read.

    The local cloud puts these lines into the operation's error instead.
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
