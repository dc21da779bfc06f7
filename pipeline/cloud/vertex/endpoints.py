"""Endpoints as records, with the deployed models and the traffic split they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.cloud.aiplatform_v1.types import Endpoint

from pipeline.cloud.clock import Clock
from pipeline.cloud.vertex.failures import ServiceFailure, not_found
from pipeline.cloud.vertex.names import ModelName
from pipeline.cloud.vertex.records import Records, Shelf


class Endpoints:
    """``dedicated_dns`` gives the host a dedicated endpoint answers at; it may differ after a restart."""

    def __init__(self, records: Records, clock: Clock, dedicated_dns: Callable[[], str]) -> None:
        self._records = records
        self._clock = clock
        self._dedicated_dns = dedicated_dns
        self._shelf = Shelf(records, "endpoint", Endpoint)

    def find(self, name: str) -> Any:
        """The endpoint of this name; raises NOT_FOUND."""
        endpoint = self._shelf.get(name)
        if endpoint is None:
            raise not_found("Endpoint", name)
        return self._with_dns(endpoint)

    def exists(self, name: str) -> bool:
        return self._shelf.get(name) is not None

    def all(self, location: str = "") -> list[Any]:
        return [self._with_dns(endpoint) for endpoint in self._shelf.all(location)]

    def save(self, endpoint: Any) -> None:
        endpoint.update_time = self._clock.now()
        self._shelf.put(endpoint.name, endpoint)

    def change(self, name: str, change: Callable[[Any], None]) -> Any:
        """Change an endpoint in one step and return it."""
        with self._records.lock:
            endpoint = self.find(name)
            change(endpoint)
            self.save(endpoint)
            return endpoint

    def remove(self, name: str) -> None:
        self._shelf.delete(name)

    def holding(self, model: ModelName) -> list[str]:
        """Names of the endpoints on which a model is deployed; with a version, that version alone."""
        return [
            endpoint.name
            for endpoint in self._shelf.all("")
            if any(_is_of(deployed, model) for deployed in endpoint.deployed_models)
        ]

    def _with_dns(self, endpoint: Any) -> Any:
        if endpoint.dedicated_endpoint_enabled:
            endpoint.dedicated_endpoint_dns = self._dedicated_dns()
        return endpoint


def _is_of(deployed: Any, model: ModelName) -> bool:
    same_version = model.version in ("", deployed.model_version_id)
    return bool(deployed.model.partition("@")[0] == model.resource and same_version)


def find_deployed(endpoint: Any, deployed_id: str) -> Any:
    """The deployed model of this id on an endpoint; raises NOT_FOUND."""
    for deployed in endpoint.deployed_models:
        if deployed.id == deployed_id:
            return deployed
    raise ServiceFailure("NOT_FOUND", f"Deployed model {deployed_id} is not on endpoint {endpoint.name}.")
