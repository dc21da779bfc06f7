"""google.cloud.aiplatform.v1.ModelService: upload, versions, aliases, lists and deletes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from google.cloud.aiplatform_v1.types import (
    DeployedModelRef,
    ListModelsResponse,
    ListModelVersionsResponse,
    Model,
    UploadModelRequest,
    UploadModelResponse,
)
from google.protobuf import empty_pb2

from pipeline import rules
from pipeline.cloud.clock import Clock
from pipeline.cloud.vertex.calls import Call, Handler
from pipeline.cloud.vertex.checks import enforce, failure_of, today
from pipeline.cloud.vertex.endpoints import Endpoints
from pipeline.cloud.vertex.failures import invalid
from pipeline.cloud.vertex.listing import page
from pipeline.cloud.vertex.models import DEFAULT_ALIAS, Models
from pipeline.cloud.vertex.names import (
    ModelName,
    location_of,
    new_number,
    read_location,
    read_model,
    region_of,
)
from pipeline.cloud.vertex.operations import Operations, Task, Work

_UPDATABLE = {"display_name", "description", "version_description", "labels"}


class Artifacts(Protocol):
    """The part of Cloud Storage that the registry reads."""

    def names(self, uri: str) -> list[str]:
        """The objects below a gs:// folder, relative to it; empty when there is none."""
        ...


class ModelService:
    """Models and their versions."""

    def __init__(
        self,
        models: Models,
        operations: Operations,
        clock: Clock,
        artifacts: Artifacts,
        endpoints: Endpoints,
    ) -> None:
        self._models = models
        self._operations = operations
        self._clock = clock
        self._artifacts = artifacts
        self._endpoints = endpoints

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "ModelService.UploadModel": self.upload,
            "ModelService.GetModel": self.get,
            "ModelService.ListModels": self.list_models,
            "ModelService.ListModelVersions": self.list_versions,
            "ModelService.UpdateModel": self.update,
            "ModelService.MergeVersionAliases": self.merge_aliases,
            "ModelService.DeleteModel": self.delete,
            "ModelService.DeleteModelVersion": self.delete_version,
        }

    def works(self) -> Mapping[str, Work]:
        return {"UploadModel": self._upload, "DeleteModel": self._delete, "DeleteModelVersion": self._delete}

    def upload(self, request: Any, _: Call) -> Any:
        location = read_location(request.parent)
        model = request.model
        enforce(rules.check_upload(_plain_upload(request, location), today(self._clock)))
        _check_routes(model.container_spec)
        if model.artifact_uri:
            names = self._artifacts.names(model.artifact_uri)
            if rules.parse_prebuilt(model.container_spec.image_uri):
                enforce(rules.check_model_directory(model.artifact_uri, names))
            elif not names:
                raise failure_of("artifact_missing", "artifact_uri", model.artifact_uri)
        with self._operations.lock:
            resource = self._place(request, location)
            plan = {"model": resource, "version": self._models.next_version(resource)}
            task = self._operations.begin("UploadModel", resource, request, plan, model.display_name)
        return self._operations.first_answer(task)

    def _place(self, request: Any, location: str) -> str:
        """The name of the model that an upload makes or adds a version to."""
        if request.parent_model:
            return str(self._models.find(read_model(request.parent_model)).name)
        resource = f"{location}/models/{request.model_id or new_number()}"
        if self._models.versions(resource) or self._operations.busy("UploadModel", "model", resource):
            raise failure_of("already_exists", "model_id", resource, kind="Model")
        return resource

    def _upload(self, task: Task) -> Any:
        request = UploadModelRequest.from_json(task.request)
        model = Model(request.model)
        now = self._clock.now()
        model.name, model.version_id = task.plan["model"], task.plan["version"]
        model.create_time = model.version_create_time = now
        dedicated = Model.DeploymentResourcesType(1)  # DEDICATED_RESOURCES
        model.supported_deployment_resources_types.append(dedicated)
        model.supported_input_storage_formats = ["jsonl", "csv", "tf-record", "file-list"]
        model.supported_output_storage_formats = ["jsonl"]
        aliases = list(model.version_aliases)
        model.version_aliases = []
        for earlier in self._models.versions(model.name)[:1]:
            model.create_time = earlier.create_time
        self._models.add(model, aliases)
        return UploadModelResponse(model=model.name, model_version_id=model.version_id)

    def get(self, request: Any, _: Call) -> Any:
        return self._with_deployments(self._models.find(read_model(request.name)))

    def _with_deployments(self, model: Any) -> Any:
        held = self._endpoints.holding(ModelName(model.name, model.version_id))
        model.deployed_models = [
            DeployedModelRef(endpoint=endpoint, deployed_model_id=deployed_id)
            for endpoint, deployed_id in held
        ]
        return model

    def _deployed_on(self, name: ModelName) -> list[str]:
        """The endpoints on which a model (all versions, or one) is or is being deployed."""
        endpoints = [endpoint for endpoint, _ in self._endpoints.holding(name)]
        if self._operations.busy("DeployModel", "model", name.resource):
            endpoints.append("an endpoint it is being deployed to")
        return endpoints

    def list_models(self, request: Any, _: Call) -> Any:
        found = self._models.defaults(read_location(request.parent))
        kept, token = page(found, request.page_size, request.page_token, request.filter, request.order_by)
        models = [self._with_deployments(model) for model in kept]
        return ListModelsResponse(models=models, next_page_token=token)

    def list_versions(self, request: Any, _: Call) -> Any:
        name = read_model(request.name)
        self._models.find(name)
        found = self._models.versions(name.resource)
        for model in map(self._with_deployments, found):  # this list alone shows the version in the name
            model.name = f"{model.name}@{model.version_id}"
        kept, token = page(found, request.page_size, request.page_token, request.filter, request.order_by)
        return ListModelVersionsResponse(models=kept, next_page_token=token)

    def update(self, request: Any, _: Call) -> Any:
        model = self._models.find(read_model(request.model.name))
        paths = set(request.update_mask.paths)
        if not paths or paths - _UPDATABLE:
            raise invalid(
                f"Field mask of UpdateModel must name some of {sorted(_UPDATABLE)}, got {sorted(paths)}."
            )
        for path in paths:
            setattr(model, path, getattr(request.model, path))
        enforce(rules.check_display_name(model.display_name) + rules.check_labels(dict(model.labels)))
        self._models.save(model)
        return model

    def merge_aliases(self, request: Any, _: Call) -> Any:
        name = read_model(request.name)
        changes = list(request.version_aliases)
        if not name.version:
            raise invalid("MergeVersionAliases needs a model version: models/MODEL@VERSION.")
        if f"-{DEFAULT_ALIAS}" in changes:
            raise invalid("The default alias cannot be removed; give it to another version instead.")
        return self._models.merge_aliases(self._models.find(name), changes)

    def delete(self, request: Any, _: Call) -> Any:
        name = ModelName(read_model(request.name).resource, "")
        with self._operations.lock:
            model = self._models.find(name)
            enforce(rules.check_model_delete(name.resource, self._deployed_on(name)))
            plan = {"model": name.resource, "version": None}
            task = self._operations.begin("DeleteModel", name.resource, request, plan, model.display_name)
        return self._operations.first_answer(task)

    def delete_version(self, request: Any, _: Call) -> Any:
        name = read_model(request.name)
        if not name.version:
            raise invalid("DeleteModelVersion needs a model version: models/MODEL@VERSION.")
        with self._operations.lock:
            model = self._models.find(name)
            self._check_version_delete(model)
            plan = {"model": model.name, "version": model.version_id}
            title = model.display_name
            task = self._operations.begin("DeleteModelVersion", model.name, request, plan, title)
        return self._operations.first_answer(task)

    def _check_version_delete(self, model: Any) -> None:
        count = len(self._models.versions(model.name))
        if count == 1:
            raise failure_of("only_version", "version", model.version_id, model=model.name)
        enforce(rules.check_version_delete(model.version_id, DEFAULT_ALIAS in model.version_aliases, count))
        version = ModelName(model.name, model.version_id)
        enforce(rules.check_model_delete(version.at(version.version), self._deployed_on(version)))

    def _delete(self, task: Task) -> Any:
        self._models.remove(task.plan["model"], task.plan["version"])
        return empty_pb2.Empty()


def _check_routes(container: Any) -> None:
    """Refuse routes that lead elsewhere when they are appended to the replica's address."""
    for field in ("predict_route", "health_route"):
        route = getattr(container, field)
        if route and not re.fullmatch(r"/(?!/)[\w.~:/-]*", route, re.ASCII):
            raise invalid(f"Invalid container_spec.{field} {route!r}: a path such as /predictions/model.")


def _plain_upload(request: Any, location: str) -> rules.Upload:
    model = request.model
    timeout = model.container_spec.deployment_timeout
    return rules.Upload(
        display_name=model.display_name,
        image_uri=model.container_spec.image_uri,
        region=region_of(location_of(location)),
        artifact_uri=model.artifact_uri,
        model_id=request.model_id or None,
        version_aliases=[alias for alias in model.version_aliases if alias != DEFAULT_ALIAS],
        labels=dict(model.labels),
        deployment_timeout_seconds=int(timeout.total_seconds()) if timeout else None,
    )
