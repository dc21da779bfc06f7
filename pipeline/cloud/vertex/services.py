"""The services of the local Vertex AI put together, and the records under them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.vertex.artifacts import Artifacts
from pipeline.cloud.vertex.calls import Handler
from pipeline.cloud.vertex.checks import with_faults
from pipeline.cloud.vertex.containers import StartContainer
from pipeline.cloud.vertex.deployment_service import DeploymentService
from pipeline.cloud.vertex.deployments import Deployments
from pipeline.cloud.vertex.endpoint_service import EndpointService
from pipeline.cloud.vertex.endpoints import Endpoints
from pipeline.cloud.vertex.failures import ServiceFailure
from pipeline.cloud.vertex.model_service import ModelService
from pipeline.cloud.vertex.models import Models
from pipeline.cloud.vertex.names import ModelName, read_endpoint, read_model
from pipeline.cloud.vertex.operation_service import (
    OperationService,
    Permissions,
    get_location,
    list_locations,
)
from pipeline.cloud.vertex.operations import Operations
from pipeline.cloud.vertex.placement import Placement, place_key
from pipeline.cloud.vertex.prediction_service import PredictionService
from pipeline.cloud.vertex.records import Records

LOG = logging.getLogger(__name__)


class Vertex:
    """The services behind the front ends. The server that knows the port sets ``dedicated_dns``."""

    def __init__(
        self, folder: Path, artifacts: Artifacts, start: StartContainer, clock: Clock, faults: FaultBook
    ) -> None:
        self.dedicated_dns = ""
        self._faults = faults
        self._records = Records(folder)
        self._models = Models(self._records, clock)
        self._deployments = Deployments(folder / "deployed", artifacts, start, clock, faults)
        self._endpoints = Endpoints(self._records, clock, lambda: self.dedicated_dns, self._deployments.count)
        self._operations = Operations(self._records, clock, faults)
        self._model_service = ModelService(self._models, self._operations, clock, artifacts, self._endpoints)
        self._endpoint_service = EndpointService(self._endpoints, self._operations, clock)
        self._deployment_service = DeploymentService(
            self._models, self._endpoints, self._deployments, self._operations, clock, faults
        )
        self._prediction_service = PredictionService(self._endpoints, self._deployments, clock, faults)
        for service in (self._model_service, self._endpoint_service, self._deployment_service):
            self._operations.register(service.works())
        self._stop = threading.Event()
        self._starter = threading.Thread(target=self._restart_models, name="restart", daemon=True)

    def handlers(self) -> Mapping[str, Handler]:
        """The handler of each ``Service.Method``; a fault that is set comes first."""
        served: dict[str, Handler] = {
            **self._model_service.handlers(),
            **self._endpoint_service.handlers(),
            **self._deployment_service.handlers(),
            **self._prediction_service.handlers(),
        }
        faulty = {
            key: with_faults(key, handler, self._faults, self._title) for key, handler in served.items()
        }
        return {
            **faulty,
            **OperationService(self._operations).handlers(),
            **Permissions(self._faults).handlers(),
            "Locations.GetLocation": get_location,
            "Locations.ListLocations": list_locations,
        }

    def resume(self) -> None:
        """Start the deployed models again and continue unfinished operations, without waiting for either."""
        self._operations.resume()
        self._starter.start()

    def stop(self) -> None:
        self._stop.set()
        self._operations.stop()
        self._starter.join()
        self._deployments.stop()
        self._records.close()

    def _restart_models(self) -> None:
        for endpoint in self._endpoints.all():
            for deployed in endpoint.deployed_models:
                if self._stop.is_set():
                    return
                self._restart(endpoint.name, deployed)

    def _restart(self, endpoint: str, deployed: Any) -> None:
        try:
            model = self._models.find(ModelName(deployed.model, deployed.model_version_id))
            self._deployments.start(Placement(endpoint, deployed, model), self._stop)
        except ServiceFailure as failure:
            LOG.error("deployed model %s of %s did not start again: %s", deployed.id, endpoint, failure)
            self._deployments.lose(place_key(endpoint, deployed.id))

    def _title(self, request: Any) -> str:
        """The display name that fault targets know a request's resource by; empty when it has none."""
        for field, resource in (("model", "models"), ("endpoint", "endpoints")):
            inner = getattr(request, field, None)
            if title := getattr(inner, "display_name", ""):
                return str(title)
            name = inner if isinstance(inner, str) else getattr(request, "name", "")
            if f"/{resource}/" in str(name) and (title := self._stored_title(str(name))):
                return title
        return ""

    def _stored_title(self, name: str) -> str:
        try:
            if "/models/" in name:
                return str(self._models.find(read_model(name)).display_name)
            return str(self._endpoints.find(read_endpoint(name)).display_name)
        except ServiceFailure:
            return ""
