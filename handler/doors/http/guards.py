"""Which requests are taken: by Host header, API key and rate, and from pages of which origins.

Each check is off unless its setting is there, except that of the Host header on loopback: without it a web
page could reach a server on its reader's machine under another name (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from handler.contract.problem import Refusal

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/", "/ping", "/v2/health/live", "/v2/health/ready"})
"""DrawRequest by probes, which have no key; they tell nothing but whether the server is ready."""

SHORTEST_KEY = 16
MOST_CALLERS = 10_000
RATE = re.compile(r"(\d{1,6})/(s|min|h)")
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass
class Allowance:
    """``most`` requests at once, and one more each ``seconds / most``, for each caller alone."""

    most: int
    seconds: float
    _used: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait(self, caller: str, now: float) -> float:
        """Takes a request of this caller; seconds until it may ask where it may not now, else 0."""
        left, last = self._used.pop(caller, (float(self.most), now))
        left = min(float(self.most), left + (now - last) * self.most / self.seconds)
        allowed = left >= 1
        self._used[caller] = (left - 1 if allowed else left, now)
        if len(self._used) > MOST_CALLERS:  # the one that has been silent longest
            self._used.popitem(last=False)
        return 0.0 if allowed else (1 - left) * self.seconds / self.most


@dataclass
class Guards:
    """``hosts`` None: any Host header; ``keys`` are SHA-256 digests, none: everybody may ask.

    ``open_paths`` need no key and count towards no rate.
    """

    hosts: frozenset[str] | None = None
    keys: tuple[bytes, ...] = ()
    allowance: Allowance | None = None
    origins: tuple[str, ...] = ()
    open_paths: frozenset[str] = OPEN_PATHS

    def refuse(self, path: str, headers: Mapping[str, str], address: str, now: float) -> Refusal | None:
        """Why this request is not taken, or None. ``headers`` have lower-case names; ``now`` in seconds."""
        if self.hosts is not None and _host(headers.get("host", "")) not in self.hosts:
            message = "the Host header names another server; this one listens on this machine alone"
            return Refusal(421, "wrong_host", f"{message}: ask it as 127.0.0.1 or localhost")
        if path in self.open_paths:
            return None
        key = _digest(_given_key(headers))
        if self.keys and not sum(hmac.compare_digest(key, known) for known in self.keys):
            message = "an API key is needed: send Authorization: Bearer KEY, or X-API-Key: KEY"
            return Refusal(401, "wrong_api_key", message)
        if self.allowance is not None:
            caller = key.hex() if self.keys else address
            if seconds := self.allowance.wait(caller, now):
                message = f"more than {self.allowance.most} requests in {self.allowance.seconds:g} s"
                return Refusal(429, "too_many_requests", message, (), math.ceil(seconds))
        return None


def read_guards(environment: Mapping[str, str], bind: str) -> Guards:
    """The guards that the environment names; ``bind`` is the address that is listened on.

    MARQUEE_API_KEYS_FILE: a key a line; MARQUEE_RATE_LIMIT: such as 60/min; MARQUEE_CORS_ORIGINS and
    MARQUEE_ALLOWED_HOSTS: names with commas. Raises ValueError or OSError.
    """
    hosts = _names(environment.get("MARQUEE_ALLOWED_HOSTS", ""))
    loopback = bind.startswith("127.") or bind in ("localhost", "::1")
    allowed = (
        frozenset(name.lower() for name in hosts) | LOOPBACK | {bind.lower()} if loopback or hosts else None
    )
    file, rate = environment.get("MARQUEE_API_KEYS_FILE"), environment.get("MARQUEE_RATE_LIMIT")
    health = environment.get("AIP_HEALTH_ROUTE")
    return Guards(
        hosts=allowed,
        keys=_read_keys(Path(file)) if file else (),
        allowance=_allowance(rate) if rate else None,
        origins=_names(environment.get("MARQUEE_CORS_ORIGINS", "")),
        open_paths=OPEN_PATHS | ({health} if health else set()),
    )


def _read_keys(file: Path) -> tuple[bytes, ...]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or any(len(key) < SHORTEST_KEY for key in keys):
        raise ValueError(
            f"MARQUEE_API_KEYS_FILE {file} must hold a key a line, each of {SHORTEST_KEY} characters or more"
        )
    return tuple(_digest(key) for key in keys)


def _allowance(rate: str) -> Allowance:
    parts = RATE.fullmatch(rate.strip())
    if parts is None or int(parts[1]) < 1:
        raise ValueError(f"MARQUEE_RATE_LIMIT is {rate!r}; it must be such as 5/s, 60/min or 1000/h")
    return Allowance(int(parts[1]), SECONDS[parts[2]])


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _given_key(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _digest(key: str) -> bytes:
    """Digests have one length, so the comparison takes one time."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(header: str) -> str:
    """The name without the port, in lower case."""
    name = header.strip().lower()
    return name[: name.find("]") + 1] if name.startswith("[") else name.partition(":")[0]
