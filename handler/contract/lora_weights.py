"""The LoRAs that a picture asks for, each with its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handler.contract.body import Repeating
from handler.contract.job import LoraWeight
from handler.contract.kinds import finite, kind_of, shown
from handler.contract.problem import FieldError, brief, nearest
from handler.contract.settings import MOST_LORA_WEIGHT, LoraSettings

KEYS = ("name", "weight")


@dataclass(frozen=True)
class LoraWeights:
    """A list of {"name": ..., "weight": ...}, or of names alone; ``known`` are the archive's LoRAs."""

    known: Mapping[str, LoraSettings]

    @property
    def allowed(self) -> str:
        """What is allowed, for a message."""
        if not self.known:
            return "an empty list: this archive holds no LoRA"
        return (
            'a list of {"name": ..., "weight": ...}, each name once;'
            f" names: {', '.join(self.known)}; weights from {-MOST_LORA_WEIGHT:g} to {MOST_LORA_WEIGHT:g}"
        )

    def read(self, name: str, value: Any) -> tuple[LoraWeight, ...]:
        if not isinstance(value, list):
            raise self._error(name, f"is {kind_of(value)}")
        # A longer list names one of them twice, or another one.
        loras = [self._one(f"{name}[{index}]", one) for index, one in enumerate(value[: len(self.known) + 1])]
        names = [lora.name for lora in loras]
        for one in names:
            if names.count(one) > 1:
                raise self._error(name, f"names {one} more than once")
        return tuple(loras)

    def schema(self) -> dict[str, Any]:
        known = {"enum": list(self.known)} if self.known else {"type": "string"}
        weight = {"type": "number", "minimum": -MOST_LORA_WEIGHT, "maximum": MOST_LORA_WEIGHT}
        weighted = {
            "type": "object",
            "properties": {"name": known, "weight": weight},
            "required": ["name"],
            "additionalProperties": False,
        }
        return {"type": "array", "items": {"anyOf": [weighted, known]}}

    def _one(self, place: str, entry: Any) -> LoraWeight:
        if isinstance(entry, str):
            entry = {"name": entry}
        if not isinstance(entry, dict):
            raise self._error(place, f"is {kind_of(entry)}")
        if isinstance(entry, Repeating):
            raise self._error(place, "has a key more than once")
        for key in entry:
            if key not in KEYS:
                raise self._error(place, f"has the unknown key {brief(key)!r}", nearest(str(key), KEYS))
        name = entry.get("name")
        if not isinstance(name, str):
            raise self._error(place, "has no name that is a string")
        if name not in self.known:
            guess = nearest(name, self.known)
            raise self._error(place, f"names {brief(name)!r}, which the archive does not hold", guess)
        return LoraWeight(name, self._weight(place, entry.get("weight", self.known[name].default_weight)))

    def _weight(self, place: str, value: Any) -> float:
        weight = finite(value)
        if weight is None:
            raise self._error(place, f"has a weight that is {kind_of(value)}")
        if not -MOST_LORA_WEIGHT <= weight <= MOST_LORA_WEIGHT:
            raise self._error(place, f"has the weight {shown(weight)}")
        return float(weight)

    def _error(self, place: str, found: str, guess: str | None = None) -> FieldError:
        return FieldError(self.allowed, f"{place} {found}; loras must be {self.allowed}", guess)
