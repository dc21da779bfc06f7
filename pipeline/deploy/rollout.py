"""The calls that change an endpoint: create, deploy, resize, traffic with roles, undeploy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.deploy.answers import Unanswered
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import MANAGED
from pipeline.deploy.machines import wanted_resources
from pipeline.deploy.operations import wait
from pipeline.deploy.plan import Deploy, Traffic
from pipeline.deploy.roles import with_roles, without_roles
from pipeline.deploy.survey import created_text
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Endpoint

_BEING_DEPLOYED = "0"  # the key for the new model in the traffic split of its own DeployModel request


def create_endpoint(connection: Connection, config: DeployConfig, progress: Progress) -> None:
    from google.cloud.aiplatform_v1.types import CreateEndpointRequest

    request = CreateEndpointRequest(
        parent=connection.location, endpoint=wanted_endpoint(config), endpoint_id=config.endpoint
    )
    operation = connection.endpoints.create_endpoint(request=request)
    wait(connection, operation, f"creating endpoint {config.endpoint}", progress)


def wanted_endpoint(config: DeployConfig) -> Endpoint:
    from google.cloud.aiplatform_v1.types import ClientConnectionConfig, Endpoint

    endpoint = Endpoint(
        display_name=config.endpoint,
        labels={**config.labels, **MANAGED},
        dedicated_endpoint_enabled=config.dedicated,
    )
    if config.inference_timeout:
        timeout = {"seconds": config.inference_timeout}
        endpoint.client_connection_config = ClientConnectionConfig(inference_timeout=timeout)
    return endpoint


def read_unchanged(connection: Connection, endpoint_id: str, split: Mapping[str, int]) -> Endpoint:
    """The endpoint, read again. Raises Unanswered when its traffic has changed since the plan was made."""
    endpoint = connection.endpoints.get_endpoint(name=connection.endpoint_name(endpoint_id))
    now = {key: share for key, share in endpoint.traffic_split.items() if share}
    if now != dict(split):
        raise Unanswered(
            f"the traffic of endpoint {endpoint_id} was changed by somebody else in the meantime: "
            f"{now}, not {dict(split)}",
            cure="run it again: it makes a new plan",
        )
    return endpoint


def deploy_model(
    connection: Connection, config: DeployConfig, action: Deploy, version_id: str, progress: Progress
) -> None:
    """Deploy the version to the endpoint with its first share of the traffic."""
    from google.cloud.aiplatform_v1.types import DeployedModel

    model = DeployedModel(
        id=action.deployed_id,
        model=f"{connection.model_name(action.model_id)}@{version_id}",
        display_name=config.model,
        dedicated_resources=wanted_resources(config),
        service_account=config.service_account or "",
    )
    split = {
        _BEING_DEPLOYED if key == action.deployed_id else key: share for key, share in action.split.items()
    }
    operation = connection.endpoints.deploy_model(
        endpoint=connection.endpoint_name(config.endpoint), deployed_model=model, traffic_split=split
    )
    progress.note(f"deploying {config.model} version {version_id}: minutes on Google")
    wait(connection, operation, f"deploying {config.model}", progress)


def resize(connection: Connection, config: DeployConfig, deployed_id: str, progress: Progress) -> None:
    """Change replica counts and targets, the only properties that a deployed model can change."""
    name = connection.endpoint_name(config.endpoint)
    endpoint = connection.endpoints.get_endpoint(name=name)
    there = next((model for model in endpoint.deployed_models if model.id == deployed_id), None)
    if there is None:
        raise MarqueeError(f"deployed model {deployed_id} no longer exists", cure="run it again")
    wanted = wanted_resources(config)
    fields = ("min_replica_count", "max_replica_count", "autoscaling_metric_specs")
    for field in fields:
        setattr(there.dedicated_resources, field, getattr(wanted, field))
    mask = {"paths": [f"dedicated_resources.{field}" for field in fields]}
    operation = connection.endpoints.mutate_deployed_model(
        endpoint=name, deployed_model=there, update_mask=mask
    )
    wait(connection, operation, "changing the replica counts", progress)


def set_traffic(connection: Connection, endpoint: Endpoint, action: Traffic) -> None:
    """Replace the traffic split and marquee's labels in one call; other labels stay.

    The request carries the etag that was read, so that it fails if somebody changed the endpoint meanwhile.
    """
    from google.cloud.aiplatform_v1.types import Endpoint

    labels = dict(endpoint.labels)
    if action.roles is None:
        labels = without_roles(labels)
    else:
        created = {model.id: created_text(model) for model in endpoint.deployed_models}
        proved = [action.proved] if action.proved else []
        labels = with_roles(labels, action.roles, action.command, created, proved)
    changed = Endpoint(name=endpoint.name, traffic_split=action.split, labels=labels, etag=endpoint.etag)
    connection.endpoints.update_endpoint(endpoint=changed, update_mask={"paths": ["traffic_split", "labels"]})


def undeploy(
    connection: Connection, endpoint_id: str, model_id: str, split: Mapping[str, int], progress: Progress
) -> None:
    """Undeploy a model; ``split`` is the traffic afterwards, empty if no model gets any."""
    operation = connection.endpoints.undeploy_model(
        endpoint=connection.endpoint_name(endpoint_id), deployed_model_id=model_id, traffic_split=dict(split)
    )
    wait(connection, operation, f"undeploying {model_id}", progress)
