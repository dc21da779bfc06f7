"""The kinds of value that a field can have: how each is read from JSON, and its JSON Schema."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from handler.contract.problem import FieldError, nearest
from handler.contract.schedulers import find_scheduler

MAX_SEED = 2**64 - 1
# From here on a double may stand for its neighbour; protobuf's Value makes every JSON number a double.
MAX_EXACT = 2**53


class Kind(Protocol):
    """What a field can hold."""

    def read(self, name: str, value: Any) -> Any:
        """The checked value of the field ``name``; raises FieldError."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the values that ``read`` takes."""


@dataclass(frozen=True)
class Text:
    """A string of at most ``longest`` characters; ``blank``: it may be empty."""

    longest: int
    blank: bool = False

    def read(self, name: str, value: Any) -> str:
        allowed = f"{'a' if self.blank else 'a non-empty'} string of at most {self.longest} characters"
        if not isinstance(value, str):
            raise FieldError(allowed, f"{name} must be {allowed}, not {kind_of(value)}")
        if not self.blank and not value.strip():
            raise FieldError(allowed, f"{name} is empty; it must be {allowed}")
        if len(value) > self.longest:
            raise FieldError(allowed, f"{name} has {len(value)} characters; it must be {allowed}")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise FieldError(
                "valid Unicode", f"{name} holds half of a surrogate pair, which is not valid Unicode"
            )
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", **({} if self.blank else {"pattern": r"\S"}), "maxLength": self.longest}


@dataclass(frozen=True)
class Whole:
    """A whole number from ``low`` to ``high``; a float without a fraction is one: Vertex's SDK sends 25.0."""

    low: int
    high: int
    multiple_of: int = 1

    def read(self, name: str, value: Any) -> int:
        steps = "a whole number" if self.multiple_of == 1 else f"a multiple of {self.multiple_of}"
        allowed = f"{steps} from {self.low} to {self.high}"
        number = finite(value)
        if number is None:
            raise FieldError(allowed, f"{name} must be {allowed}, not {kind_of(value)}")
        if not self.low <= number <= self.high or number % self.multiple_of:
            raise FieldError(allowed, f"{name} is {shown(number)}; it must be {allowed}")
        return int(number)

    def schema(self) -> dict[str, Any]:
        steps = {} if self.multiple_of == 1 else {"multipleOf": self.multiple_of}
        return {"type": "integer", "minimum": self.low, "maximum": self.high, **steps}


@dataclass(frozen=True)
class Number:
    """A number from ``low`` to ``high``."""

    low: float
    high: float

    def read(self, name: str, value: Any) -> float:
        allowed = f"a number from {self.low:g} to {self.high:g}"
        number = finite(value)
        if number is None:
            raise FieldError(allowed, f"{name} must be {allowed}, not {kind_of(value)}")
        if not self.low <= number <= self.high:
            raise FieldError(allowed, f"{name} is {shown(number)}; it must be {allowed}")
        return float(number)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


class Switch:
    """true or false."""

    def read(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise FieldError("true or false", f"{name} must be true or false, not {kind_of(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Word:
    """One of some words; ``optional``: null stands for none of them."""

    known: Sequence[str]
    optional: bool = False

    def read(self, name: str, value: Any) -> str | None:
        if value is None and self.optional:
            return None
        allowed = " or ".join([*([f"one of {', '.join(self.known)}"] if self.known else []), *self._null])
        if not isinstance(value, str):
            raise FieldError(allowed, f"{name} must be {allowed}, not {kind_of(value)}")
        if value not in self.known:
            raise FieldError(allowed, f"{name} must be {allowed}", nearest(value, self.known))
        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": [*self.known, None] if self.optional else list(self.known)}

    @property
    def _null(self) -> Sequence[str]:
        return ["null"] if self.optional else []


@dataclass(frozen=True)
class Scheduler:
    """A scheduler in any spelling; the schema lists the canonical names alone."""

    known: Sequence[str]

    def read(self, name: str, value: Any) -> str:
        allowed = f"one of {', '.join(self.known)}"
        if not isinstance(value, str):
            raise FieldError(allowed, f"{name} must be {allowed}, not {kind_of(value)}")
        canonical = find_scheduler(value)
        if canonical is None or canonical not in self.known:
            raise FieldError(allowed, f"{name} must be {allowed}", nearest(value, self.known))
        return canonical

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.known)}


class Seed:
    """A seed as a number or as a decimal string; null asks for one drawn at random."""

    def read(self, name: str, value: Any) -> int | None:
        allowed = (
            f"a whole number from 0 to {MAX_SEED} (from {MAX_EXACT} on as a string), or null for a random one"
        )
        if value is None:
            return None
        if isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value):
            value = int(value)
        number = finite(value)
        if number is None:
            raise FieldError(allowed, f"{name} must be {allowed}, not {kind_of(value)}")
        if not 0 <= number <= MAX_SEED or number % 1:
            raise FieldError(allowed, f"{name} is {shown(number)}; it must be {allowed}")
        if isinstance(number, float) and number >= MAX_EXACT:
            raise FieldError(
                allowed, f"{name} {number:.0f} came as a float and may have lost digits; send it as a string"
            )
        return int(number)

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
                {"type": "string", "pattern": "^[0-9]{1,20}$"},
                {"type": "null"},
            ]
        }


class Deadline:
    """Seconds above 0, or null for no deadline."""

    def read(self, name: str, value: Any) -> float | None:
        allowed = "a number of seconds above 0, or null for no deadline"
        if value is None:
            return None
        number = finite(value)
        if number is None:
            raise FieldError(allowed, f"{name} must be {allowed}, not {kind_of(value)}")
        if number <= 0 or number > MAX_EXACT:
            raise FieldError(allowed, f"{name} is {shown(number)}; it must be {allowed}")
        return float(number)

    def schema(self) -> dict[str, Any]:
        return {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_EXACT}


def finite(value: Any) -> int | float | None:
    """The value as a number; None for anything else, NaN, infinities and booleans included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def shown(number: int | float) -> str:
    """A number for a message, however large it is."""
    return f"{number}" if isinstance(number, float) or number.bit_length() <= 64 else "far out of range"


def kind_of(value: Any) -> str:
    """What a JSON value is, for a message; never the value itself, but for a float."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    if isinstance(value, int) and not isinstance(value, bool):
        return "a number"
    return str(value) if isinstance(value, float) else names.get(type(value), "a value of another type")
