"""Endpoints as records, with the deployed models and the traffic split they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.cloud.aiplatform_v1.types import Endpoint

from pipeline.cloud.clock import Clock
from pipeline.cloud.vertex.failures import ServiceFailure, not_found
from pipeline.cloud.vertex.names import ModelName
from pipeline.cloud.vertex.placement import place_key
from pipeline.cloud.vertex.records import Records, Shelf


class Endpoints:
    """``dedicated_dns`` gives the host a dedicated endpoint answers at; it may differ after a restart.

    ``replicas`` gives the number of running replicas of a deployed model, by its key.
    """

    def __init__(
        self,
        records: Records,
        clock: Clock,
        dedicated_dns: Callable[[], str],
        replicas: Callable[[str], int],
    ) -> None:
        self._records = records
        self._clock = clock
        self._dedicated_dns = dedicated_dns
        self._replicas = replicas
        self._shelf = Shelf(records, "endpoint", Endpoint)

    def find(self, name: str) -> Any:
        """The endpoint of this name; raises NOT_FOUND."""
        endpoint = self._shelf.get(name)
        if endpoint is None:
            raise not_found("Endpoint", name)
        return self._live(endpoint)

    def exists(self, name: str) -> bool:
        return self._shelf.get(name) is not None

    def all(self, location: str = "") -> list[Any]:
        return [self._live(endpoint) for endpoint in self._shelf.all(location)]

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

    def holding(self, model: ModelName) -> list[tuple[str, str]]:
        """Where a model is deployed, as endpoint and deployed model id; with a version, that one alone."""
        return [
            (endpoint.name, deployed.id)
            for endpoint in self._shelf.all("")
            for deployed in endpoint.deployed_models
            if _is_of(deployed, model)
        ]

    def _live(self, endpoint: Any) -> Any:
        """The endpoint with its present host and its present number of replicas."""
        if endpoint.dedicated_endpoint_enabled:
            endpoint.dedicated_endpoint_dns = self._dedicated_dns()
        for deployed in endpoint.deployed_models:
            deployed.status.available_replica_count = self._replicas(place_key(endpoint.name, deployed.id))
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
