"""One seed for all tries of a request: a client that tries again must not get another picture.

OpenAI's client tries again by itself and counts its tries in x-stainless-retry-count. A request without a
seed gets one at its first try; a further try of the same body gets the same one.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping

from handler.doors.seeds import draw_seed

KEPT = 1000


class RetrySeeds:
    """The seeds of the last requests without one. For any thread."""

    def __init__(self) -> None:
        self._seeds: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def seed(self, body: bytes, headers: Mapping[str, str]) -> int:
        """A new seed for a first try; that of the first try for a further one."""
        asked_by = headers.get("authorization", "") + headers.get("idempotency-key", "")
        key = hashlib.sha256(asked_by.encode("utf-8", "surrogateescape") + b"\n" + body).digest()
        again = headers.get("x-stainless-retry-count", "0") != "0" or "idempotency-key" in headers
        with self._lock:
            if not again or key not in self._seeds:
                self._seeds[key] = draw_seed()
            self._seeds.move_to_end(key)
            if len(self._seeds) > KEPT:
                self._seeds.popitem(last=False)
            return self._seeds[key]
