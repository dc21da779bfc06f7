"""The values of model-config.yaml: each is checked, and a wrong one is a SettingsError that names its key."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class SettingsError(ValueError):
    """A wrong value in model-config.yaml; the message names the key and the allowed values."""


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """``value`` where it is a mapping; ``where`` is its key, for a message."""
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a mapping, not {value!r}")
    return value


def refuse_unknown(given: Mapping[str, Any], known: set[str] | frozenset[str], where: str) -> None:
    """Raises SettingsError for the first key, in alphabetical order, that is not ``known``."""
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise SettingsError(
            f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )


def fill(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from a mapping, each value of its default's type (an int may stand for a float)."""
    return kind(**some_of(kind, value, where))


def some_of(kind: type[T], value: Any, where: str) -> dict[str, Any]:
    """The fields of a dataclass that a mapping names, each checked as in ``fill``."""
    given = mapping(value, where)
    defaults = {spec.name: spec.default for spec in dataclasses.fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(given, set(defaults), where)
    return {name: _like(item, defaults[name], f"{where}.{name}") for name, item in given.items()}


def choice(value: Any, allowed: tuple[Any, ...], where: str) -> Any:
    """``value`` where it is one of those that are allowed, and of the same type."""
    if not any(value is option or (value == option and isinstance(value, str)) for option in allowed):
        raise SettingsError(f"{where} is {value!r}; it must be one of {', '.join(map(str, allowed))}")
    return value


def count(value: Any, where: str, otherwise: str = "") -> int:
    """A whole number, 1 or more; ``otherwise`` says in a message what else is allowed."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(f"{where} is {value!r}; it must be a whole number, 1 or more{otherwise}")
    return value


def auto_or_count(value: Any, where: str) -> int | str:
    """The word auto, or a whole number, 1 or more."""
    return "auto" if value == "auto" else count(value, where, ", or auto")


def _like(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise SettingsError(f"{where} is {value!r}; it must be of type {type(default).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where} is {value!r}; it must be a finite number")
    if where.startswith("marquee.limits") and value < 1:
        raise SettingsError(f"{where} is {value!r}; it must be 1 or more")
    return value
