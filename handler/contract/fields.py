"""Every field a request can carry: a value from JSON in, the checked value or a FieldError out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from handler.contract.problem import nearest
from handler.contract.schedulers import find_scheduler
from handler.contract.settings import OUTPUT_FORMATS, RESPONSES, Settings

MAX_SEED = 2**64 - 1
# From here on a double may stand for its neighbour; protobuf's Value makes every JSON number a double.
MAX_EXACT = 2**53

ALIASES = {
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "inference_steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "image_format": "output_format",
    "format": "output_format",
    "negative": "negative_prompt",
    "text": "prompt",
    "h": "height",
    "w": "width",
    "deadline": "deadline_seconds",
    "timeout": "deadline_seconds",
}
"""What other programs call our fields: only suggested, never accepted."""

Read = Callable[[Any], Any]


class FieldError(ValueError):
    """A value that a field cannot take; ``allowed`` describes the allowed values."""

    def __init__(self, allowed: str, message: str, did_you_mean: str | None = None) -> None:
        super().__init__(message)
        self.allowed = allowed
        self.did_you_mean = did_you_mean


def readers(settings: Settings) -> Mapping[str, Read]:
    """One reader per field name, for these limits; each takes a JSON value and raises FieldError."""
    limits = settings.limits
    longest = limits.max_prompt_characters
    return {
        "prompt": lambda value: _text("prompt", value, longest, blank=False),
        "negative_prompt": lambda value: _text("negative_prompt", value, longest, blank=True),
        "num_inference_steps": lambda value: _whole(
            "num_inference_steps", value, 1, limits.max_num_inference_steps
        ),
        "guidance_scale": lambda value: _number("guidance_scale", value, 0, limits.max_guidance_scale),
        "seed": _seed,
        "width": lambda value: _whole("width", value, limits.min_width, limits.max_width, multiple_of=8),
        "height": lambda value: _whole("height", value, limits.min_height, limits.max_height, multiple_of=8),
        "scheduler": lambda value: _scheduler(value, settings.schedulers),
        "output_format": lambda value: _word("output_format", value, OUTPUT_FORMATS),
        "quality": lambda value: _whole("quality", value, 1, 100),
        "response": lambda value: _word("response", value, RESPONSES),
        "deadline_seconds": _deadline,
    }


def _text(name: str, value: Any, longest: int, blank: bool) -> str:
    allowed = f"{'a' if blank else 'a non-empty'} string of at most {longest} characters"
    if not isinstance(value, str):
        raise FieldError(allowed, f"{name} must be {allowed}, not {_kind(value)}")
    if not blank and not value.strip():
        raise FieldError(allowed, f"{name} is empty; it must be {allowed}")
    if len(value) > longest:
        raise FieldError(allowed, f"{name} has {len(value)} characters; it must be {allowed}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise FieldError(
            "valid Unicode", f"{name} holds half of a surrogate pair, which is not valid Unicode"
        )
    return value


def _whole(name: str, value: Any, low: int, high: int, multiple_of: int = 1) -> int:
    """An int, or a float without a fraction: Vertex's SDK sends 25 as 25.0."""
    steps = "a whole number" if multiple_of == 1 else f"a multiple of {multiple_of}"
    allowed = f"{steps} from {low} to {high}"
    number = _finite(value)
    if number is None:
        raise FieldError(allowed, f"{name} must be {allowed}, not {_kind(value)}")
    if not low <= number <= high or number % multiple_of:
        raise FieldError(allowed, f"{name} is {_shown(number)}; it must be {allowed}")
    return int(number)


def _number(name: str, value: Any, low: float, high: float) -> float:
    allowed = f"a number from {low:g} to {high:g}"
    number = _finite(value)
    if number is None:
        raise FieldError(allowed, f"{name} must be {allowed}, not {_kind(value)}")
    if not low <= number <= high:
        raise FieldError(allowed, f"{name} is {_shown(number)}; it must be {allowed}")
    return float(number)


def _seed(value: Any) -> int | None:
    """A seed as a number or as a decimal string; null asks for one drawn at random."""
    allowed = (
        f"a whole number from 0 to {MAX_SEED} (from {MAX_EXACT} on as a string), or null for a random one"
    )
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value):
        value = int(value)
    number = _finite(value)
    if number is None:
        raise FieldError(allowed, f"seed must be {allowed}, not {_kind(value)}")
    if not 0 <= number <= MAX_SEED or number % 1:
        raise FieldError(allowed, f"seed is {_shown(number)}; it must be {allowed}")
    if isinstance(number, float) and number >= MAX_EXACT:
        raise FieldError(
            allowed, f"seed {number:.0f} came as a float and may have lost digits; send it as a string"
        )
    return int(number)


def _deadline(value: Any) -> float | None:
    allowed = "a number of seconds above 0, or null for no deadline"
    if value is None:
        return None
    number = _finite(value)
    if number is None:
        raise FieldError(allowed, f"deadline_seconds must be {allowed}, not {_kind(value)}")
    if number <= 0 or number > MAX_EXACT:
        raise FieldError(allowed, f"deadline_seconds is {_shown(number)}; it must be {allowed}")
    return float(number)


def _scheduler(value: Any, known: Sequence[str]) -> str:
    allowed = f"one of {', '.join(known)}"
    if not isinstance(value, str):
        raise FieldError(allowed, f"scheduler must be {allowed}, not {_kind(value)}")
    name = find_scheduler(value)
    if name is None or name not in known:
        raise FieldError(allowed, f"scheduler must be {allowed}", nearest(value, known))
    return name


def _word(name: str, value: Any, known: Sequence[str]) -> str:
    allowed = f"one of {', '.join(known)}"
    if not isinstance(value, str):
        raise FieldError(allowed, f"{name} must be {allowed}, not {_kind(value)}")
    if value not in known:
        raise FieldError(allowed, f"{name} must be {allowed}", nearest(value, known))
    return value


def _finite(value: Any) -> int | float | None:
    """The value as a number; None for anything else, NaN, infinities and booleans included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _shown(number: int | float) -> str:
    return f"{number}" if isinstance(number, float) or number.bit_length() <= 64 else "far out of range"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return str(value) if isinstance(value, float) else names.get(type(value), "a value of another type")
