"""LoRAs by name and weight for each row of one call, as low-rank additions to the layers' outputs.

diffusers and peft set a LoRA's weight for a whole call. Here every row has its own:
``output += up(down(input) * weight of the row)``, for each LoRA that is asked for.
Hooks do that. A call has them only where one of its rows asks for a LoRA; other calls are those of diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

import torch

from handler.contract.job import Failure, Job, LoraWeight
from handler.model.loras import LoraLayer
from handler.model.model import Model

Asked = Sequence[LoraWeight]
"""The LoRAs of one row."""
Tensors = Sequence["torch.Tensor | None"]
Call = Callable[..., "torch.Tensor"]


PARTS = {"to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v")}
"""diffusers' fused projection, and the plain ones whose rows it holds one below the other."""


@dataclass(frozen=True)
class RowWeights:
    """One LoRA's weights in one call: of ``rows``, or of all rows where that is None."""

    rows: torch.Tensor | None
    weights: torch.Tensor


@dataclass(frozen=True)
class Addition:
    """What a LoRA adds to a module's output, in ``length`` features from ``start`` on.

    Only a fused projection has more features than one layer's.
    """

    layer: LoraLayer
    start: int
    length: int

    def add(self, inputs: torch.Tensor, output: torch.Tensor, asked: RowWeights) -> None:
        """Changes ``output`` in place."""
        product = torch.nn.functional.linear if self.layer.down.dim() == 2 else torch.nn.functional.conv2d
        rows = inputs if asked.rows is None else inputs[asked.rows]
        weights = asked.weights.view(-1, *(1 for _ in range(rows.dim() - 1)))
        hidden = product(rows, self.layer.down) * weights
        # A row without the LoRA stays as it is, even where its product is infinite.
        hidden = hidden.masked_fill(weights == 0, 0)
        added = product(hidden, self.layer.up)
        feature = -1 if self.layer.down.dim() == 2 else 1
        target = output.narrow(feature, self.start, self.length)
        if asked.rows is None:
            target.add_(added)
        else:
            target.index_add_(0, asked.rows, added)


class RowLoras:
    """The LoRAs of one part of the model, for calls of ``module``."""

    def __init__(self, module: Any, loras: Mapping[str, Mapping[str, LoraLayer]]) -> None:
        self._names = tuple(sorted(name for name, layers in loras.items() if layers))
        self._like = next(module.parameters()) if self._names else torch.empty(0)
        self._additions: dict[Any, dict[str, list[Addition]]] = {}
        for name in self._names:
            for path, layer in loras[name].items():
                called, start = called_module(module, path)
                addition = Addition(layer, start, len(layer.up))
                self._additions.setdefault(called, {}).setdefault(name, []).append(addition)

    def chosen(self, asked: Asked) -> dict[str, float]:
        """Weights by name of the LoRAs that change this part, sorted by name; those of weight 0 do not."""
        weights: dict[str, float] = {}
        for one in asked:
            if one.name in self._names:
                weights[one.name] = weights.get(one.name, 0.0) + one.weight
        return {name: weight for name, weight in sorted(weights.items()) if weight}

    @contextmanager
    def added(self, asked: Sequence[Asked], rows: int | None = None) -> Iterator[None]:
        """Calls of the module inside have rows that ask for these LoRAs.

        ``rows``: the call is padded to so many, and every row takes part in every addition, so that a row's
        bits do not depend on how many others ask.
        """
        chosen = [self.chosen(one) for one in asked]
        live = {
            name: _row_weights([weights.get(name, 0.0) for weights in chosen], self._like, rows)
            for name in self._names
            if any(name in weights for weights in chosen)
        }
        hooks = [
            module.register_forward_hook(partial(_add, [(found[name], live[name]) for name in names]))
            for module, found in self._additions.items()
            if (names := [name for name in live if name in found])
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class UNetRows:
    """Calls of the model's UNet whose rows may ask for LoRAs."""

    def __init__(self, model: Model) -> None:
        self._unet = model.unet
        self._eager_unet = getattr(model.unet, "eager", model.unet)  # an AcceleratedUNet's own way
        plain = getattr(model.unet, "plain", model.unet)
        self._loras = RowLoras(plain, {name: lora.unet for name, lora in model.loras.items()})

    def call(self, call: Call, tensors: Tensors, asked: Sequence[Asked], rows: int | None) -> torch.Tensor:
        """``call(unet, *tensors)`` for all rows, in two calls where an accelerated UNet cannot take LoRAs.

        Each of the ``tensors`` has one row for each of ``asked``, or is None; ``rows`` is the number that
        ``call`` pads them to, where it does.
        """
        changed = [bool(self._loras.chosen(one)) for one in asked]
        if not any(changed):
            return call(self._unet, *tensors)
        if self._eager_unet is self._unet or all(changed):
            return self._eager(call, tensors, asked, rows)
        with_loras = [number for number, one in enumerate(changed) if one]
        without = [number for number, one in enumerate(changed) if not one]
        parts = [
            call(self._unet, *_rows(tensors, without)),
            self._eager(call, _rows(tensors, with_loras), [asked[number] for number in with_loras], rows),
        ]
        order = torch.tensor([*without, *with_loras], device=parts[0].device)
        return torch.cat(parts)[order.argsort()]

    def _eager(self, call: Call, tensors: Tensors, asked: Sequence[Asked], rows: int | None) -> torch.Tensor:
        with self._loras.added(asked, rows):
            return call(self._eager_unet, *tensors)


def check_loras(model: Model, job: Job) -> Failure | None:
    """The 400 of a job that asks for a LoRA which the archive does not hold."""
    unknown = sorted({one.name for one in job.loras} - model.loras.keys())
    if not unknown:
        return None
    held = ", ".join(sorted(model.loras)) or "none"
    message = f"loras: this archive has no LoRA {unknown[0][:100]!r}; it has {held}"
    return Failure(400, "invalid_request", message)


def all_loras(model: Model) -> tuple[LoraWeight, ...]:
    """What the row asks for that takes the most memory."""
    return tuple(LoraWeight(name, 1.0) for name in model.loras)


def called_module(module: Any, path: str) -> tuple[Any, int]:
    """The module that computes a layer, and the first of its features that are the layer's.

    Where projections are fused, to_q, to_k and to_v are parts of another module and never called.
    """
    parent_path, _, name = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    if getattr(parent, "fused_projections", False):
        for fused_name, names in PARTS.items():
            if name in names and hasattr(parent, fused_name):
                before = names[: names.index(name)]
                return getattr(parent, fused_name), sum(getattr(parent, one).out_features for one in before)
    return module.get_submodule(path), 0


def _row_weights(weights: Sequence[float], like: torch.Tensor, rows: int | None) -> RowWeights:
    chosen = None
    if rows is not None:
        weights = [*weights, *(0.0 for _ in range(rows - len(weights)))]
    elif not all(weights):
        numbers = [number for number, weight in enumerate(weights) if weight]
        weights = [weights[number] for number in numbers]
        chosen = torch.tensor(numbers, device=like.device)
    return RowWeights(chosen, torch.tensor(weights, device=like.device, dtype=like.dtype))


def _add(
    additions: Sequence[tuple[Sequence[Addition], RowWeights]],
    _module: Any,
    inputs: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> None:
    for ones, weights in additions:
        for addition in ones:
            addition.add(inputs[0], output, weights)


def _rows(tensors: Tensors, numbers: list[int]) -> Tensors:
    chosen = [None if tensor is None else torch.tensor(numbers, device=tensor.device) for tensor in tensors]
    return [None if tensor is None else tensor[rows] for tensor, rows in zip(tensors, chosen)]
