"""Faults on request: which calls of the local cloud fail, how, and how often.

A fault is data in ``faults.json`` of the cloud's folder: the command line writes it, the server takes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.cloud.state import write_whole
from pipeline.errors import MarqueeError

_MOST = 1e12  # seconds, bytes or times; beyond it a clock cannot wait


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault: its effect, how often by default (None: until cleared), its parameters' defaults."""

    does: str
    count: int | None = None
    parameters: dict[str, float] = field(default_factory=dict)


# Targets: storage faults match "BUCKET/OBJECT" (a bucket: "BUCKET"), Vertex faults "METHOD/DISPLAY NAME",
# such as "DeployModel/shapes".
FAULTS: dict[str, FaultKind] = {
    "upload-cut": FaultKind(
        "reset the connection of an upload after so many bytes", 1, {"after_bytes": 1 << 20}
    ),
    "storage-permission-denied": FaultKind("answer storage requests with 403"),
    "storage-too-many-requests": FaultKind("answer storage requests with 429", 1),
    "storage-unavailable": FaultKind("answer storage requests with 503", 1),
    "permission-denied": FaultKind("answer Vertex AI calls with PERMISSION_DENIED"),
    "quota-exhausted": FaultKind("refuse DeployModel with RESOURCE_EXHAUSTED"),
    "never-ready": FaultKind("the container of a deployment never becomes ready"),
    "slow-start": FaultKind("a replica waits before it starts", None, {"seconds": 120}),
    "endpoint-timeout": FaultKind("a prediction is not answered within the endpoint's limit"),
    "scaled-to-zero": FaultKind(
        "predictions are answered with 429 while the model scales up", None, {"seconds": 60}
    ),
    "operation-fails": FaultKind("a long-running operation fails after a while", 1, {"seconds": 180}),
    "unavailable": FaultKind("answer Vertex AI calls with UNAVAILABLE", 1),
}


@dataclass(frozen=True)
class Fault:
    """A fault that is set. ``target`` is a file name pattern; ``count`` None means until cleared."""

    name: str
    target: str = "*"
    count: int | None = None
    parameters: dict[str, float] = field(default_factory=dict)

    def hits(self, name: str, target: str) -> bool:
        return self.name == name and self.count != 0 and fnmatchcase(target, self.target)


def parse_fault(text: str) -> Fault:
    """Read ``NAME[,target=PATTERN][,count=N|forever][,PARAMETER=NUMBER]``; raises MarqueeError."""
    name, *words = text.split(",")
    kind = FAULTS.get(name)
    if kind is None:
        raise _no_such(name)
    fault = Fault(name, count=kind.count, parameters=dict(kind.parameters))
    for word in words:
        fault = _with_option(fault, *word.partition("=")[::2])
    return fault


def _no_such(name: str) -> MarqueeError:
    return MarqueeError(f"no fault is called {name!r}", cure=f"one of: {', '.join(FAULTS)}")


def _with_option(fault: Fault, key: str, value: str) -> Fault:
    if key == "target":
        return replace(fault, target=value)
    known = FAULTS[fault.name].parameters
    if key != "count" and key not in known:
        raise MarqueeError(
            f"fault {fault.name} has no option {key!r}",
            cure=f"one of: {', '.join(['target', 'count', *known])}",
        )
    if key == "count":
        return replace(fault, count=None if value == "forever" else _count(fault.name, value))
    return replace(fault, parameters={**fault.parameters, key: _number(fault.name, key, value)})


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or not int(value):
        raise MarqueeError(
            f"count of fault {name} is {value!r}, not a whole number", cure="count=1 to 999999999, or forever"
        )
    return int(value)


def _number(name: str, key: str, value: str) -> float:
    """A number that a clock or a counter of bytes can take; infinity and nan are none."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _MOST:
        raise MarqueeError(f"{key} of fault {name} is {value!r}, not a number", cure=f"{key}=0 to {_MOST:g}")
    return number


class FaultBook:
    """The faults that are set, in a file shared by the command line and the server."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def all(self) -> list[Fault]:
        """Every fault that is set; reading makes no file. Raises MarqueeError."""
        return self._read()

    def set(self, fault: Fault) -> None:
        with self._locked():
            self._write([*self._read(), fault])

    def clear(self, name: str | None = None) -> None:
        """Clear the faults of this name, or all. Creates no file where no fault was ever set."""
        if name is not None and name not in FAULTS:
            raise _no_such(name)
        if self._path.exists():
            with self._locked():
                kept = [fault for fault in self._read() if fault.name != name] if name is not None else []
                self._write(kept)

    def take(self, name: str, target: str) -> Fault | None:
        """The first set fault that applies, counted down by one; None when none applies."""
        if not self._path.exists():
            return None
        with self._locked():
            faults = self._read()
            for index, fault in enumerate(faults):
                if fault.hits(name, target):
                    if fault.count is not None:
                        faults[index : index + 1] = [replace(fault, count=fault.count - 1)] * (
                            fault.count > 1
                        )
                        self._write(faults)
                    return fault
        return None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time. Writing is one step, so that readers need no lock."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._path.with_suffix(".lock"), flags, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        with self._lock, open(descriptor, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> list[Fault]:
        try:
            return [_fault_of(entry) for entry in json.loads(self._path.read_text())]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from None
        except (ValueError, TypeError, LookupError, RecursionError):
            raise MarqueeError(f"{self._path} is broken", cure="marquee cloud fault clear") from None

    def _write(self, faults: list[Fault]) -> None:
        try:
            if faults:
                write_whole(self._path, json.dumps([asdict(fault) for fault in faults], indent=1))
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> MarqueeError:
        return MarqueeError(
            f"{self._path} cannot be used: {error.strerror or error}",
            cure="another --state, or free the disk",
        )


def _fault_of(entry: dict[str, Any]) -> Fault:
    """A fault as the file holds it; a name that is unknown or a number that is none raises ValueError."""
    fault = Fault(**entry)
    numbers = [*fault.parameters.values(), 1 if fault.count is None else fault.count]
    known = FAULTS[fault.name].parameters.keys() == fault.parameters.keys()
    if not known or not isinstance(fault.target, str) or not all(0 <= each <= _MOST for each in numbers):
        raise ValueError(fault.name)
    return fault
