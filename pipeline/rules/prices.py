"""The price per hour of a replica: prices.yaml, typed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Price:
    """US dollars per hour of one replica; ``verified`` False: look it up again before you rely on it."""

    dollars_per_hour: float
    source: str
    checked_on: date
    verified: bool


def replica_price(
    machine_type: str, accelerator_type: str | None, accelerator_count: int, region: str, spot: bool
) -> Price | None:
    """The price of one replica, or None where the table has none."""
    prices = _prices()
    machine = prices["machines"].get(machine_type)
    accelerator = prices["accelerators"].get(accelerator_type) if accelerator_type else 0.0
    if machine is None or accelerator is None:
        return None
    factor = prices["region_factor"].get(region, prices["other_region_factor"])
    dollars = (machine + accelerator * accelerator_count) * factor * (prices["spot_factor"] if spot else 1.0)
    return Price(round(dollars, 4), prices["source"], prices["checked_on"], prices["verified"])


@cache
def _prices() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text())
    return raw
