"""The option ``--lora NAME=FILE[:DEFAULT_WEIGHT]``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MarqueeError

NAME = re.compile(r"[a-z0-9_-]{1,64}")
LARGEST_WEIGHT = 10.0
FORM = "write --lora NAME=FILE or --lora NAME=FILE:DEFAULT_WEIGHT, for example --lora ink=ink.safetensors:0.8"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA to pack: the name it is asked for by, its file, and its weight where a request names none.

    ``default_weight`` is None where the option does not say it: then model-config.yaml does, or it is 1.
    """

    name: str
    path: Path
    default_weight: float | None = None


def parse_loras(options: Sequence[str]) -> tuple[LoraFile, ...]:
    """The values of all --lora options; raises MarqueeError naming the first that is wrong."""
    found = tuple(_parse(option) for option in options)
    check_names(found)
    return found


def check_names(loras: Sequence[LoraFile]) -> None:
    """Raises MarqueeError for a name that cannot be asked for, or that two LoRAs have."""
    seen: dict[str, Path] = {}
    for lora in loras:
        if not NAME.fullmatch(lora.name):
            raise MarqueeError(
                f"--lora: {lora.name[:100]!r} is not a name for a LoRA;"
                " 1 to 64 of the characters a-z, 0-9, _ and - are",
                FORM,
            )
        if lora.name in seen:
            raise MarqueeError(
                f"--lora: two LoRAs have the name {lora.name}: {seen[lora.name]} and {lora.path}",
                "give each LoRA a name of its own",
            )
        weight = lora.default_weight
        if weight is not None and not abs(weight) <= LARGEST_WEIGHT:  # NaN is not, either
            raise MarqueeError(
                f"--lora {lora.name}: the default weight is {weight};"
                f" {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g} is possible",
                FORM,
            )
        seen[lora.name] = lora.path


def _parse(option: str) -> LoraFile:
    name, equals, rest = option.partition("=")
    if not equals or not rest:
        raise MarqueeError(f"--lora {option[:200]!r} names no file", FORM)
    file, colon, weight = rest.rpartition(":")
    if not colon or _exists(rest):
        return LoraFile(name, Path(rest))
    try:
        number = float(weight)
    except ValueError:
        raise MarqueeError(
            f"--lora {name}: {rest[:200]} does not exist, and {weight[:50]!r} is not a weight", FORM
        ) from None
    if not math.isfinite(number):
        raise MarqueeError(f"--lora {name}: the default weight is {weight}; it must be a finite number", FORM)
    return LoraFile(name, Path(file), number)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
