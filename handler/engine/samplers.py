"""The sampler of each latent size in use, of the kind the options ask for."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Callable

from handler.engine.linear import Courses, LinearSampler
from handler.engine.options import EngineOptions
from handler.engine.sampler import Sampler, SchedulerSampler
from handler.engine.ticket import Size
from handler.schedulers import make_scheduler

if TYPE_CHECKING:
    from handler.model import Model


class FreshSchedulers:
    """Schedulers by canonical name: made once from the model's own, then copied, which is quicker."""

    def __init__(self, template: Any) -> None:
        self._template = template
        self._made: dict[str, Any] = {}

    def __call__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = make_scheduler(name, self._template)
        return copy.deepcopy(self._made[name])


class Samplers:
    """Made on first use; ``keep`` drops those of sizes that nobody draws any more."""

    def __init__(self, model: Model, options: EngineOptions, most_live: Callable[[Size], int]) -> None:
        self._model, self._options, self._most_live = model, options, most_live
        self._make_scheduler = FreshSchedulers(model.scheduler)
        self._courses = Courses(self._make_scheduler)
        self._by_size: dict[Size, Sampler] = {}

    def of(self, size: Size) -> Sampler:
        if size not in self._by_size:
            self._by_size[size] = self._make(size)
        return self._by_size[size]

    def keep(self, sizes: Collection[Size]) -> None:
        self._by_size = {size: sampler for size, sampler in self._by_size.items() if size in sizes}

    def _make(self, size: Size) -> Sampler:
        model, channels = self._model, self._model.unet.config.in_channels
        if not self._options.vectorised:
            return SchedulerSampler(self._make_scheduler, channels, size, model.device, model.dtype)
        columns = self._options.history_columns if self._options.strict else None
        shape = (self._most_live(size), channels, size)
        return LinearSampler(self._courses, shape, model.device, model.dtype, columns)
