"""The model registry: models, their versions and the aliases that point at them, as records."""

from __future__ import annotations

from typing import Any

from google.cloud.aiplatform_v1.types import Model

from pipeline.cloud.clock import Clock
from pipeline.cloud.vertex.failures import not_found
from pipeline.cloud.vertex.names import ModelName
from pipeline.cloud.vertex.records import Records, Shelf

DEFAULT_ALIAS = "default"
_COUNTER = "version counter"


class Models:
    """Every version of every model; exactly one version of a model carries the alias ``default``."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._shelf = Shelf(records, "model", Model)

    def versions(self, resource: str) -> list[Any]:
        """All versions of one model, oldest first; empty when there is no such model."""
        return self._shelf.all(f"{resource}@")

    def find(self, name: ModelName) -> Any:
        """The version that a name means; raises NOT_FOUND."""
        wanted = name.version or DEFAULT_ALIAS
        for model in self.versions(name.resource):
            if wanted in model.version_aliases or model.version_id == wanted:
                return model
        raise not_found("Model", name.at(name.version) if name.version else name.resource)

    def defaults(self, location: str) -> list[Any]:
        """The default version of every model in a location."""
        models = self._shelf.all(f"{location}/models/")
        return [model for model in models if DEFAULT_ALIAS in model.version_aliases]

    def next_version(self, resource: str) -> str:
        """A version id that was never used before, also not by a version that is deleted now."""
        with self._records.lock:
            number = int(self._records.get(_COUNTER, resource) or 0) + 1
            self._records.put(_COUNTER, resource, str(number))
            return str(number)

    def add(self, model: Any, aliases: list[str]) -> None:
        """Put a new version in place; its aliases leave the versions that had them."""
        with self._records.lock:
            first = not self.versions(model.name)
            self._move_aliases(model, [*aliases, DEFAULT_ALIAS] if first else aliases)

    def merge_aliases(self, model: Any, changes: list[str]) -> Any:
        """Add aliases to a version and remove those written with a leading "-"."""
        with self._records.lock:
            removed = {change[1:] for change in changes if change.startswith("-")}
            kept = [alias for alias in model.version_aliases if alias not in removed]
            model.version_aliases = kept
            self._move_aliases(model, [change for change in changes if not change.startswith("-")])
            return model

    def save(self, model: Any) -> None:
        model.version_update_time = model.update_time = self._clock.now()
        self._shelf.put(f"{model.name}@{model.version_id}", model)

    def remove(self, resource: str, version: str | None = None) -> None:
        """Delete one version, or all of them."""
        with self._records.lock:
            for model in self.versions(resource):
                if version in (None, model.version_id):
                    self._shelf.delete(f"{resource}@{model.version_id}")
            if version is None:
                self._records.delete(_COUNTER, resource)

    def _move_aliases(self, model: Any, aliases: list[str]) -> None:
        moved = set(aliases)
        for other in self.versions(model.name):
            if other.version_id != model.version_id and moved & set(other.version_aliases):
                other.version_aliases = [alias for alias in other.version_aliases if alias not in moved]
                self.save(other)
        model.version_aliases = sorted(moved | set(model.version_aliases))
        self.save(model)
