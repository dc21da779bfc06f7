"""google.cloud.aiplatform.v1.EndpointService without deploying, which is in deployment_service.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.cloud.aiplatform_v1.types import CreateEndpointRequest, Endpoint, ListEndpointsResponse
from google.cloud.aiplatform_v1.types.endpoint_service import UpdateEndpointLongRunningRequest
from google.protobuf import empty_pb2

from pipeline import rules
from pipeline.cloud.clock import Clock
from pipeline.cloud.vertex.calls import Call, Handler
from pipeline.cloud.vertex.checks import enforce, failure_of
from pipeline.cloud.vertex.endpoints import Endpoints
from pipeline.cloud.vertex.failures import ServiceFailure, invalid
from pipeline.cloud.vertex.listing import page
from pipeline.cloud.vertex.names import new_number, read_endpoint, read_location, region_of
from pipeline.cloud.vertex.operations import Operations, Task, Work

_UPDATABLE = {"display_name", "description", "labels", "traffic_split", "client_connection_config"}


class EndpointService:
    """Creates, lists, changes and deletes endpoints."""

    def __init__(self, endpoints: Endpoints, operations: Operations, clock: Clock) -> None:
        self._endpoints = endpoints
        self._operations = operations
        self._clock = clock

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "EndpointService.CreateEndpoint": self.create,
            "EndpointService.GetEndpoint": self.get,
            "EndpointService.ListEndpoints": self.list_endpoints,
            "EndpointService.UpdateEndpoint": self.update,
            "EndpointService.UpdateEndpointLongRunning": self.update_slowly,
            "EndpointService.DeleteEndpoint": self.delete,
        }

    def works(self) -> Mapping[str, Work]:
        return {
            "CreateEndpoint": self._create,
            "UpdateEndpointLongRunning": self._update,
            "DeleteEndpoint": self._delete,
        }

    def create(self, request: Any, _: Call) -> Any:
        location = read_location(request.parent)
        endpoint = request.endpoint
        enforce(rules.check_region(region_of(location)))
        enforce(
            rules.check_endpoint_create(
                endpoint.display_name,
                request.endpoint_id or None,
                dict(endpoint.labels),
                endpoint.dedicated_endpoint_enabled,
                inference_timeout(endpoint),
            )
        )
        name = f"{location}/endpoints/{request.endpoint_id or new_number()}"
        with self._operations.lock:
            if self._endpoints.exists(name) or self._operations.busy("CreateEndpoint", "endpoint", name):
                raise failure_of("already_exists", "endpoint_id", name, kind="Endpoint")
            plan = {"endpoint": name}
            task = self._operations.begin("CreateEndpoint", name, request, plan, endpoint.display_name)
        return self._operations.first_answer(task)

    def _create(self, task: Task) -> Any:
        endpoint = Endpoint(CreateEndpointRequest.from_json(task.request).endpoint)
        endpoint.name = task.plan["endpoint"]
        endpoint.create_time = self._clock.now()
        endpoint.deployed_models = []
        endpoint.traffic_split = {}
        self._endpoints.save(endpoint)
        return self._endpoints.find(endpoint.name)

    def get(self, request: Any, _: Call) -> Any:
        return self._endpoints.find(read_endpoint(request.name))

    def list_endpoints(self, request: Any, _: Call) -> Any:
        found = self._endpoints.all(f"{read_location(request.parent)}/endpoints/")
        kept, token = page(found, request.page_size, request.page_token, request.filter, request.order_by)
        return ListEndpointsResponse(endpoints=kept, next_page_token=token)

    def update(self, request: Any, _: Call) -> Any:
        paths = {path.partition(".")[0] for path in request.update_mask.paths}
        if not paths or paths - _UPDATABLE:
            raise invalid(
                f"Field mask of UpdateEndpoint must name some of {sorted(_UPDATABLE)}, got {sorted(paths)}."
            )
        return self._change(request.endpoint, paths)

    def update_slowly(self, request: Any, _: Call) -> Any:
        endpoint = self._endpoints.find(read_endpoint(request.endpoint.name))
        plan = {"endpoint": endpoint.name}
        method = "UpdateEndpointLongRunning"
        task = self._operations.begin(method, endpoint.name, request, plan, endpoint.display_name)
        return self._operations.first_answer(task)

    def _update(self, task: Task) -> Any:
        """Without a mask, every field that is set in the request is taken."""
        wanted = UpdateEndpointLongRunningRequest.from_json(task.request).endpoint
        return self._change(wanted, {path for path in _UPDATABLE if getattr(wanted, path)})

    def _change(self, wanted: Any, paths: set[str]) -> Any:
        def change(endpoint: Any) -> None:
            if wanted.etag and wanted.etag != endpoint.etag:
                raise ServiceFailure(
                    "ABORTED", f"Endpoint {endpoint.name} was changed meanwhile: etag mismatch."
                )
            for path in paths:
                setattr(endpoint, path, getattr(wanted, path))
            enforce(
                rules.check_display_name(endpoint.display_name) + rules.check_labels(dict(endpoint.labels))
            )
            if "traffic_split" in paths:
                deployed = [model.id for model in endpoint.deployed_models]
                enforce(rules.check_traffic(dict(endpoint.traffic_split), deployed))

        return self._endpoints.change(read_endpoint(wanted.name), change)

    def delete(self, request: Any, _: Call) -> Any:
        with self._operations.lock:
            endpoint = self._endpoints.find(read_endpoint(request.name))
            held = [model.id for model in endpoint.deployed_models]
            if self._operations.busy("DeployModel", "endpoint", endpoint.name):
                held.append("being deployed")
            enforce(rules.check_endpoint_delete(endpoint.name, held))
            plan = {"endpoint": endpoint.name}
            title = endpoint.display_name
            task = self._operations.begin("DeleteEndpoint", endpoint.name, request, plan, title)
        return self._operations.first_answer(task)

    def _delete(self, task: Task) -> Any:
        self._endpoints.remove(task.plan["endpoint"])
        return empty_pb2.Empty()


def inference_timeout(endpoint: Any) -> int | None:
    """The seconds that an endpoint's owner set, or None."""
    timeout = endpoint.client_connection_config.inference_timeout
    return int(timeout.total_seconds()) if timeout else None
