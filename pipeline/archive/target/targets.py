"""The container targets, read from targets.yaml."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pipeline.errors import MarqueeError

_FOLDER = files(__package__)


@dataclass(frozen=True)
class Target:
    """A container that an archive can be built for; None means unknown or not needed.

    ``lock`` names the pip lock file of the packages that travel inside the archive; they run only on this
    ``python`` and ``platform`` (as ``sysconfig.get_platform`` says it, with an underscore).
    """

    name: str
    image: str | None
    python: str
    torch: str
    torchserve: str | None
    lock: str | None
    platform: str = "linux_x86_64"

    @property
    def python_tag(self) -> str:
        """The interpreter as a wheel's file name says it, such as cp39."""
        return "cp" + self.python.replace(".", "")

    @property
    def takes_continuous_batching(self) -> bool:
        """0.9 to 0.11.0 honour the switch and then answer nothing, so the version must be known."""
        return self.torchserve is not None


@dataclass(frozen=True)
class Trim:
    """Glob patterns of wheel files that stay out, and of those among them that stay in."""

    drop: tuple[str, ...]
    keep: tuple[str, ...]


def find_target(name: str) -> Target:
    """The target of that name; raises MarqueeError listing the known ones."""
    known = _document()["targets"]
    if name not in known:
        raise MarqueeError(f"no container target is called {name!r}; known are {', '.join(known)}")
    return Target(name=name, **known[name])


def target_names() -> tuple[str, ...]:
    return tuple(_document()["targets"])


def container_record(target: Target) -> bytes:
    """The archive's record of the container it was built for; handler/model/vendored.py reads it."""
    record = {"container": target.name, "python": target.python_tag, "platform": target.platform}
    return json.dumps(record, indent=2).encode()


def trim_rules() -> Trim:
    """The files of packages that are not packed."""
    rules = _document()["trim"]
    return Trim(drop=tuple(rules["drop"]), keep=tuple(rules["keep"]))


def start_cost_seconds() -> float:
    """Seconds by which packages inside delay the first picture, as last rehearsed."""
    return float(_document()["start_cost_seconds"])


def lock_text(target: Target) -> str:
    """The lock file of a target that has one."""
    return _FOLDER.joinpath(str(target.lock)).read_text(encoding="utf-8")


@cache
def _document() -> Any:
    import yaml

    return yaml.safe_load(
        files("pipeline.archive.target").joinpath("targets.yaml").read_text(encoding="utf-8")
    )
