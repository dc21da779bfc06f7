"""The doctor's findings: known failures with the values of this case, each with a cure in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.rules import table


@dataclass(frozen=True)
class Failure:
    """A known way to fail: ``doctor`` and ``cure`` are templates, ``google`` is what the service says."""

    id: str
    fault: str
    threads: tuple[str, ...]
    level: str
    doctor: str
    cure: str
    google: str
    google_verified: bool


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``level`` is ok, notice (it may fail) or problem; ``fix`` repairs it."""

    check: str
    level: str
    sentence: str
    cure: str = ""
    failure: str = ""
    threads: tuple[str, ...] = ()
    fix: Callable[[], str] | None = field(default=None, compare=False, repr=False)


@cache
def _document() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("failures.yaml").read_text())
    return raw


@cache
def failures() -> dict[str, Failure]:
    """Every known failure by its id, in the table's order."""
    found = {}
    for name, entry in _document().items():
        if isinstance(entry, dict) and "fault" in entry:
            says = entry["google"]
            rule = table().rules[says["rule"]] if "rule" in says else None
            google = (
                f"{rule.code}: {rule.text}" if rule else says["text"].replace("{{", "{").replace("}}", "}")
            )
            fields = {key: entry[key] for key in ("fault", "level", "doctor", "cure")}
            found[name] = Failure(
                id=name,
                threads=tuple(entry["threads"]),
                google=google,
                google_verified=rule.text_verified if rule else "threads" in entry and bool(entry["threads"]),
                **fields,
            )
    return found


def facts(name: str) -> dict[str, Any]:
    """One of the data tables below the failures, such as ``gone_repositories``."""
    found: dict[str, Any] = _document()[name]
    return found


def known_failure(check: str, failure_id: str, **values: object) -> Finding:
    """The finding that a known failure applies here, with ``values`` put into its sentence."""
    failure = failures()[failure_id]
    return Finding(
        check=check,
        level=failure.level,
        sentence=failure.doctor.format(**values),
        cure=failure.cure.format(**values),
        failure=failure_id,
        threads=failure.threads,
    )


def passed(check: str, sentence: str) -> Finding:
    return Finding(check, "ok", sentence)
