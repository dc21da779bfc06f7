"""The table of Google's rules: rules.yaml, typed, each rule with its source and date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Rule:
    """One thing Google refuses: the gRPC status name, the text as the SDK shows it, and the cure in one line.

    ``enforced`` is False for what only the doctor names; ``verified``: the limit was read in the source;
    ``text_verified``: the wording was. Nothing was run against Google itself.
    """

    id: str
    code: str
    text: str
    cure: str
    source: str
    checked_on: date
    verified: bool
    text_verified: bool
    enforced: bool = True


@dataclass(frozen=True)
class Violation:
    """A rule that a value breaks: ``code`` and ``message`` are what Google answers, ``cure`` what to do."""

    rule: Rule
    field: str
    value: object
    code: str
    message: str
    cure: str


@dataclass(frozen=True)
class Prebuilt:
    """One prebuilt PyTorch prediction image version; from its end of availability on no endpoint takes it."""

    version: str
    torch: str
    cuda: str
    end_of_patch: date
    end_of_availability: date


@dataclass(frozen=True)
class Accelerator:
    """An accelerator type: counts per machine type, the regions that offer it, its quota's name."""

    name: str
    quota: str
    compute_capability: str
    machines: dict[str, tuple[int, ...]]
    regions: tuple[str, ...]


@dataclass(frozen=True)
class PayloadLimits:
    """What one endpoint type takes and gives per request, in bytes, and how long it waits by default."""

    request_bytes: int
    response_bytes: int
    timeout_seconds: int


@dataclass(frozen=True)
class Table:
    """rules.yaml as a value."""

    checked_on: date
    rules: dict[str, Rule]
    prebuilt: dict[str, Prebuilt]
    machines: frozenset[str]
    accelerators: dict[str, Accelerator]
    regions: tuple[str, ...]
    shared: PayloadLimits
    dedicated: PayloadLimits
    max_inference_timeout_seconds: int
    max_deployment_timeout_seconds: int
    torchserve_response_bytes: int

    def limits(self, dedicated: bool) -> PayloadLimits:
        return self.dedicated if dedicated else self.shared

    def violation(self, rule_id: str, field: str, value: object, **facts: object) -> Violation:
        """The rule's texts with ``value`` and ``facts`` put in."""
        rule = self.rules[rule_id]
        facts = {"value": value, **facts}
        return Violation(rule, field, value, rule.code, rule.text.format(**facts), rule.cure.format(**facts))


@cache
def table() -> Table:
    """The table that ships with marquee, read once."""
    raw: dict[str, Any] = yaml.safe_load((_HERE / "rules.yaml").read_text())
    limits = raw["limits"]
    return Table(
        checked_on=raw["checked_on"],
        rules={
            name: Rule(id=name, checked_on=raw["checked_on"], **rule) for name, rule in raw["rules"].items()
        },
        prebuilt={
            name: Prebuilt(version=name, **dates) for name, dates in raw["prebuilt"]["versions"].items()
        },
        machines=frozenset(machine for family in raw["machines"].values() for machine in family),
        accelerators={name: _accelerator(name, facts) for name, facts in raw["accelerators"].items()},
        regions=tuple(raw["regions"]),
        shared=PayloadLimits(**limits["shared"]),
        dedicated=PayloadLimits(**limits["dedicated"]),
        max_inference_timeout_seconds=limits["max_inference_timeout_seconds"],
        max_deployment_timeout_seconds=limits["max_deployment_timeout_seconds"],
        torchserve_response_bytes=limits["torchserve_response_bytes"],
    )


def _accelerator(name: str, facts: dict[str, Any]) -> Accelerator:
    return Accelerator(
        name=name,
        quota=facts["quota"],
        compute_capability=facts["compute_capability"],
        machines={machine: tuple(counts) for machine, counts in facts["machines"].items()},
        regions=tuple(facts["regions"]),
    )
