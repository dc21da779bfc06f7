"""The endpoint, the deployed model on it, and where the traffic goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from pipeline.deploy.answers import explained
from pipeline.deploy.config import DeployConfig
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import MANAGED, deployed_model_id
from pipeline.deploy.operations import await_running, wait
from pipeline.deploy.survey import find_endpoint
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import DedicatedResources, DeployedModel, Endpoint, Model

# What a model that is not the first gets until its picture was right: at 0 % it cannot be reached at all.
SMOKE_PERCENT = 1
_METRICS = {
    "cpu": "aiplatform.googleapis.com/prediction/online/cpu/utilization",
    "accelerator": "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle",
    "requests": "aiplatform.googleapis.com/prediction/online/request_count",
}


def ensure_endpoint(connection: Connection, config: DeployConfig, progress: Progress) -> Endpoint:
    """The endpoint of this name, made when there is none. Raises MarqueeError when it is of another kind."""
    from google.cloud.aiplatform_v1.types import CreateEndpointRequest

    with explained(f"creating endpoint {config.endpoint}"):
        await_running(connection, connection.endpoint_name(config.endpoint), progress)
        endpoint = find_endpoint(connection, config.endpoint)
        if endpoint is None:
            operation = connection.endpoints.create_endpoint(
                request=CreateEndpointRequest(
                    parent=connection.location,
                    endpoint=wanted_endpoint(config),
                    endpoint_id=config.endpoint,
                )
            )
            endpoint = wait(operation, f"creating endpoint {config.endpoint}", progress)
            endpoint = connection.endpoints.get_endpoint(name=endpoint.name)
    if endpoint.dedicated_endpoint_enabled != config.dedicated:
        kind = "dedicated" if endpoint.dedicated_endpoint_enabled else "shared"
        raise MarqueeError(
            f"endpoint {config.endpoint} exists and is {kind}; dedicated: {config.dedicated} was asked for",
            cure="choose another endpoint name, or say dedicated as the endpoint is",
        )
    return endpoint


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


def wanted_resources(config: DeployConfig) -> DedicatedResources:
    """Machine, accelerator, replicas and autoscaling targets."""
    from google.cloud.aiplatform_v1.types import (
        AcceleratorType,
        AutoscalingMetricSpec,
        DedicatedResources,
        MachineSpec,
    )

    machine = MachineSpec(machine_type=config.machine)
    if config.accelerator:
        machine.accelerator_type = getattr(AcceleratorType, config.accelerator)
        machine.accelerator_count = config.accelerator_count
    return DedicatedResources(
        machine_spec=machine,
        min_replica_count=config.min_replicas,
        max_replica_count=config.max_replicas,
        spot=config.spot,
        autoscaling_metric_specs=[
            AutoscalingMetricSpec(metric_name=_METRICS[name], target=target)
            for name, target in config.autoscaling.targets().items()
        ],
    )


def wanted_id(config: DeployConfig, version: Model) -> str:
    """The deployed model's id: the same for a version on the same hardware, so that a rerun finds it."""
    hardware = (
        config.machine,
        config.accelerator,
        config.accelerator_count,
        config.spot,
        config.service_account,
    )
    name = f"{version.name.partition('@')[0].rpartition('/')[2]}@{version.version_id}"
    return deployed_model_id(name, hardware)


def ensure_deployed(
    connection: Connection, config: DeployConfig, version: Model, progress: Progress
) -> DeployedModel:
    """The version on the endpoint with at least ``SMOKE_PERCENT`` of its traffic, or all of it."""
    from google.cloud.aiplatform_v1.types import DeployedModel

    name, wanted = connection.endpoint_name(config.endpoint), wanted_id(config, version)
    resources = wanted_resources(config)
    with explained(f"deploying {config.model} to endpoint {config.endpoint}"):
        endpoint = connection.endpoints.get_endpoint(name=name)
        there = _find(endpoint, wanted)
        if there is None:
            model = DeployedModel(
                id=wanted,
                model=f"{version.name.partition('@')[0]}@{version.version_id}",
                display_name=config.model,
                dedicated_resources=resources,
                service_account=config.service_account or "",
            )
            operation = connection.endpoints.deploy_model(
                endpoint=name,
                deployed_model=model,
                traffic_split=with_share(endpoint.traffic_split, "0", SMOKE_PERCENT),
            )
            progress.note(f"deploying {config.model} version {version.version_id}: minutes on Google")
            answer = wait(operation, f"deploying {config.model}", progress)
            return cast("DeployedModel", answer.deployed_model)
        _adjust_replicas(connection, name, there, resources, progress)
        if not endpoint.traffic_split.get(wanted):
            set_traffic(
                connection, config.endpoint, with_share(endpoint.traffic_split, wanted, SMOKE_PERCENT)
            )
        return there


def _find(endpoint: Endpoint, deployed_id: str) -> DeployedModel | None:
    return next((model for model in endpoint.deployed_models if model.id == deployed_id), None)


def _adjust_replicas(
    connection: Connection,
    endpoint_name: str,
    there: DeployedModel,
    wanted: DedicatedResources,
    progress: Progress,
) -> None:
    """Replica counts and targets are the only things a deployed model can change."""
    have = there.dedicated_resources
    fields = ("min_replica_count", "max_replica_count", "autoscaling_metric_specs")
    if all(getattr(have, field) == getattr(wanted, field) for field in fields):
        return
    for field in fields:
        setattr(have, field, getattr(wanted, field))
    mask = {"paths": [f"dedicated_resources.{field}" for field in fields]}
    operation = connection.endpoints.mutate_deployed_model(
        endpoint=endpoint_name, deployed_model=there, update_mask=mask
    )
    wait(operation, "changing the replica counts", progress)


def with_share(split: Mapping[str, int], model_id: str, percent: int) -> dict[str, int]:
    """``split`` with ``percent`` for one model and the rest in its old proportions; it alone gets 100."""
    others = {key: share for key, share in split.items() if key != model_id and share > 0}
    if not others:
        return {model_id: 100}
    rest, total = 100 - percent, sum(others.values())
    shares = {key: share * rest // total for key, share in others.items()}
    largest = max(shares, key=lambda key: shares[key])
    shares[largest] += rest - sum(shares.values())
    return {model_id: percent, **{key: share for key, share in shares.items() if share}}


def set_traffic(connection: Connection, endpoint_id: str, split: Mapping[str, int]) -> None:
    """Replace the endpoint's traffic split."""
    from google.cloud.aiplatform_v1.types import Endpoint

    endpoint = Endpoint(name=connection.endpoint_name(endpoint_id), traffic_split=dict(split))
    connection.endpoints.update_endpoint(endpoint=endpoint, update_mask={"paths": ["traffic_split"]})


def undeploy(
    connection: Connection, endpoint_id: str, model_id: str, split: Mapping[str, int], progress: Progress
) -> None:
    """Take a deployed model off; ``split`` is the traffic afterwards, empty when none is left."""
    operation = connection.endpoints.undeploy_model(
        endpoint=connection.endpoint_name(endpoint_id), deployed_model_id=model_id, traffic_split=dict(split)
    )
    wait(operation, f"undeploying {model_id}", progress)
