"""New requests are refused before a stop, so that running ones can finish.

TorchServe has no drain. The program that starts TorchServe may set MARQUEE_DRAIN_FILE to a secret path. A
request whose one instance is ``{"drain": <that file's name>}`` closes the gate. TorchServe's queue keeps the
order, so earlier requests are drawn and later ones refused. The file closes the gates of other workers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Gate:
    """Open until it is asked to close; without a drain file it cannot be closed."""

    def __init__(self, drain_file: str | None) -> None:
        self._file = Path(drain_file) if drain_file else None

    def asks_to_close(self, row: Any) -> bool:
        """Whether a TorchServe row is the request that closes the gate."""
        if self._file is None or not isinstance(row, Mapping):
            return False
        body = row.get("body", row)
        if isinstance(body, (bytes, bytearray, str)):
            body = _short_json(body)
        return bool(body == {"instances": [{"drain": self._file.name}]})

    def close(self, running: int) -> dict[str, Any]:
        """Close it, and answer with this process's id and how many other requests it is still drawing."""
        if self._file is not None:
            self._file.touch()
        return {"predictions": [{"pid": os.getpid(), "running": running}]}

    def is_closed(self) -> bool:
        """Whether new requests are to be refused."""
        return self._file is not None and self._file.exists()


def _short_json(text: bytes | bytearray | str) -> Any:
    if len(text) > 1000:  # a request for pictures, which is parsed elsewhere
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
