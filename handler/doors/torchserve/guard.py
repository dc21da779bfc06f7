"""The edge where every exception of the door ends."""

from __future__ import annotations

import logging
from typing import Callable, TypeVar

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def guarded(doing: str, call: Callable[[], Result], otherwise: Callable[[], Result]) -> Result:
    """What ``call`` returns or, where it fails, what ``otherwise`` does, after a line and a trace in the log.

    TorchServe answers an exception by failing every request of the batch, so each call is guarded as close
    to its rows as can be: one request, else the batch.
    """
    try:
        return call()
    except Exception:
        logger.exception("%s failed", doing)
        return otherwise()
