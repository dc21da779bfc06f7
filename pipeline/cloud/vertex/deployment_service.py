"""EndpointService's DeployModel, UndeployModel and MutateDeployedModel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.cloud.aiplatform_v1.types import (
    DeployedModel,
    DeployModelRequest,
    DeployModelResponse,
    MutateDeployedModelRequest,
    MutateDeployedModelResponse,
    UndeployModelRequest,
    UndeployModelResponse,
)

from pipeline import rules
from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.vertex.calls import Call, Handler
from pipeline.cloud.vertex.checks import enforce, failure_of, today
from pipeline.cloud.vertex.deployments import Deployments
from pipeline.cloud.vertex.endpoints import Endpoints, find_deployed
from pipeline.cloud.vertex.failures import ServiceFailure, invalid
from pipeline.cloud.vertex.models import Models
from pipeline.cloud.vertex.names import new_number, read_endpoint, read_model, region_of
from pipeline.cloud.vertex.operations import Operations, Task, Work
from pipeline.cloud.vertex.placement import Placement, place_key

_BEING_DEPLOYED = "0"  # the key by which a request's traffic split means the model it deploys
_DEPLOYED_ID = re.compile(r"[0-9]{1,10}|[0-9]{19}")  # DeployedModel.id: the caller's, or an assigned one
_CPU_QUOTA = "custom_model_serving_cpus"
_MUTABLE = {"min_replica_count", "max_replica_count", "required_replica_count", "autoscaling_metric_specs"}
_METRICS = {
    "aiplatform.googleapis.com/prediction/online/cpu/utilization": "cpu",
    "aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle": "accelerator",
    "aiplatform.googleapis.com/prediction/online/request_count": "requests",
}


class DeploymentService:
    """Deploys models to endpoints and undeploys them."""

    def __init__(
        self,
        models: Models,
        endpoints: Endpoints,
        deployments: Deployments,
        operations: Operations,
        clock: Clock,
        faults: FaultBook,
    ) -> None:
        self._models = models
        self._endpoints = endpoints
        self._deployments = deployments
        self._operations = operations
        self._clock = clock
        self._faults = faults

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "EndpointService.DeployModel": self.deploy,
            "EndpointService.UndeployModel": self.undeploy,
            "EndpointService.MutateDeployedModel": self.mutate,
        }

    def works(self) -> Mapping[str, Work]:
        return {
            "DeployModel": self._deploy,
            "UndeployModel": self._undeploy,
            "MutateDeployedModel": self._mutate,
        }

    def deploy(self, request: Any, _: Call) -> Any:
        with self._operations.lock:
            task = self._begin_deploy(request)
        return self._operations.first_answer(task)

    def _begin_deploy(self, request: Any) -> Task:
        endpoint = self._endpoints.find(read_endpoint(request.endpoint))
        deployed = request.deployed_model
        model = self._models.find(read_model(deployed.model))
        enforce(rules.check_deploy(_plain_deployment(deployed, model, endpoint), today(self._clock)))
        held = [each.id for each in endpoint.deployed_models]
        if request.traffic_split:
            enforce(rules.check_traffic(dict(request.traffic_split), [*held, _BEING_DEPLOYED]))
        title = deployed.display_name or model.display_name
        if self._faults.take("quota-exhausted", f"DeployModel/{title}") is not None:
            raise failure_of("quota", "accelerator_type", _quota_of(deployed))
        deployed_id = deployed.id or new_number()
        if not _DEPLOYED_ID.fullmatch(deployed_id):
            raise failure_of("deployed_model_id", "deployed_model.id", deployed_id)
        key = place_key(endpoint.name, deployed_id)
        if deployed_id in held or self._operations.busy("DeployModel", "key", key):
            raise failure_of("already_exists", "deployed_model.id", deployed_id, kind="Deployed model")
        plan = {
            "endpoint": endpoint.name,
            "id": deployed_id,
            "key": key,
            "model": model.name,
            "version": model.version_id,
        }
        return self._operations.begin("DeployModel", endpoint.name, request, plan, title)

    def _deploy(self, task: Task) -> Any:
        request = DeployModelRequest.from_json(task.request)
        model = self._models.find(read_model(f"{task.plan['model']}@{task.plan['version']}"))
        deployed = DeployedModel(request.deployed_model)
        deployed.id = task.plan["id"]
        deployed.model, deployed.model_version_id = model.name, model.version_id
        deployed.display_name = task.title
        deployed.create_time = self._clock.now()
        resources = deployed.dedicated_resources
        resources.max_replica_count = resources.max_replica_count or max(1, resources.min_replica_count)
        try:
            self._deployments.deploy(Placement(task.plan["endpoint"], deployed, model), task.stop)
        except ServiceFailure:
            task.check()  # a container that was stopped did not fail
            raise
        if task.stop.is_set():
            self._deployments.undeploy(task.plan["key"])
        task.check()

        def add(endpoint: Any) -> None:
            others = [each for each in endpoint.deployed_models if each.id != deployed.id]
            endpoint.deployed_models = [*others, deployed]
            if request.traffic_split:
                split = dict(request.traffic_split)
                split[deployed.id] = split.pop(_BEING_DEPLOYED, 0)
                endpoint.traffic_split = {key: share for key, share in split.items() if share}

        self._endpoints.change(task.plan["endpoint"], add)
        return DeployModelResponse(deployed_model=deployed)

    def undeploy(self, request: Any, _: Call) -> Any:
        endpoint = self._endpoints.find(read_endpoint(request.endpoint))
        find_deployed(endpoint, request.deployed_model_id)
        rest = [each.id for each in endpoint.deployed_models if each.id != request.deployed_model_id]
        split = dict(request.traffic_split or endpoint.traffic_split)
        if rest:
            enforce(rules.check_undeploy(request.deployed_model_id, split, rest if split else []))
        if request.traffic_split:
            enforce(rules.check_traffic(split, rest))
        plan = {"endpoint": endpoint.name, "id": request.deployed_model_id}
        title = endpoint.display_name
        task = self._operations.begin("UndeployModel", endpoint.name, request, plan, title)
        return self._operations.first_answer(task)

    def _undeploy(self, task: Task) -> Any:
        request = UndeployModelRequest.from_json(task.request)

        def take(endpoint: Any) -> None:
            rest = [each for each in endpoint.deployed_models if each.id != task.plan["id"]]
            endpoint.deployed_models = rest
            split = dict(request.traffic_split or endpoint.traffic_split)
            endpoint.traffic_split = {
                key: share for key, share in split.items() if key != task.plan["id"] and rest
            }

        self._endpoints.change(task.plan["endpoint"], take)
        self._deployments.undeploy(place_key(task.plan["endpoint"], task.plan["id"]))
        return UndeployModelResponse()

    def mutate(self, request: Any, _: Call) -> Any:
        endpoint = self._endpoints.find(read_endpoint(request.endpoint))
        deployed = find_deployed(endpoint, request.deployed_model.id)
        paths = [path.rpartition(".")[2] for path in request.update_mask.paths]
        if not paths or set(paths) - _MUTABLE:
            raise invalid(
                f"Field mask of MutateDeployedModel must name some of {sorted(_MUTABLE)}, got {paths}."
            )
        model = self._models.find(read_model(f"{deployed.model}@{deployed.model_version_id}"))
        changed = _changed(deployed, request.deployed_model, paths)
        enforce(rules.check_deploy(_plain_deployment(changed, model, endpoint), today(self._clock)))
        plan = {"endpoint": endpoint.name, "id": deployed.id}
        title = deployed.display_name
        task = self._operations.begin("MutateDeployedModel", endpoint.name, request, plan, title)
        return self._operations.first_answer(task)

    def _mutate(self, task: Task) -> Any:
        request = MutateDeployedModelRequest.from_json(task.request)
        paths = [path.rpartition(".")[2] for path in request.update_mask.paths]
        endpoint = self._endpoints.find(task.plan["endpoint"])
        deployed = _changed(find_deployed(endpoint, task.plan["id"]), request.deployed_model, paths)
        model = self._models.find(read_model(f"{deployed.model}@{deployed.model_version_id}"))
        self._deployments.scale(Placement(endpoint.name, deployed, model), task.stop)

        def replace(endpoint: Any) -> None:
            models = endpoint.deployed_models
            endpoint.deployed_models = [deployed if each.id == deployed.id else each for each in models]

        self._endpoints.change(endpoint.name, replace)
        return MutateDeployedModelResponse(deployed_model=deployed)


def _changed(deployed: Any, wanted: Any, paths: list[str]) -> Any:
    changed = DeployedModel(deployed)
    for path in paths:
        setattr(changed.dedicated_resources, path, getattr(wanted.dedicated_resources, path))
    return changed


def _plain_deployment(deployed: Any, model: Any, endpoint: Any) -> rules.Deployment:
    resources = deployed.dedicated_resources
    machine = resources.machine_spec
    return rules.Deployment(
        region=region_of(endpoint.name),
        image_uri=model.container_spec.image_uri,
        machine_type=machine.machine_type,
        accelerator_type=machine.accelerator_type.name if machine.accelerator_type else None,
        accelerator_count=machine.accelerator_count,
        min_replicas=resources.min_replica_count,
        max_replicas=resources.max_replica_count or resources.min_replica_count,
        dedicated=endpoint.dedicated_endpoint_enabled,
        autoscaling={
            _METRICS.get(spec.metric_name, spec.metric_name): spec.target
            for spec in resources.autoscaling_metric_specs
        },
    )


def _quota_of(deployed: Any) -> str:
    machine = deployed.dedicated_resources.machine_spec
    accelerator = rules.table().accelerators.get(machine.accelerator_type.name)
    return accelerator.quota if accelerator else _CPU_QUOTA
