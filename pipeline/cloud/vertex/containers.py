"""The interface between the cloud and a deployed model's container."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pipeline.cloud.vertex.calls import RawAnswer

PREDICT_ROUTE = "/predictions/model"  # of the prebuilt PyTorch containers; so is the next
HEALTH_ROUTE = "/ping"
_CHUNK = 1 << 16


@dataclass(frozen=True)
class ContainerSpec:
    """One replica to start: the archive, its image, its number of threads, and the time it has for that."""

    archive: Path
    folder: Path
    prebuilt: bool
    threads: int
    start_seconds: float
    predict_route: str = PREDICT_ROUTE
    health_route: str = HEALTH_ROUTE
    environment: Mapping[str, str] = field(default_factory=dict)
    image_uri: str = ""


class NeverReady(Exception):
    """A container that never answered. ``lines`` are the last of its log, ``log`` the file."""

    def __init__(self, lines: list[str], log: Path | None = None) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.log = log


class Container(Protocol):
    """A running replica."""

    @property
    def url(self) -> str: ...

    def is_running(self) -> bool: ...

    def stop(self) -> None: ...


# Starts one container and returns it ready; gives up when the event is set; raises NeverReady.
StartContainer = Callable[[ContainerSpec, threading.Event], Container]


class TooSlow(Exception):
    """The container did not answer in time."""


class TooLarge(Exception):
    """The container's answer is longer than its reader takes; the argument is the bytes received."""


def post(url: str, body: bytes, content_type: str, seconds: float, most_bytes: int) -> RawAnswer:
    """Send a request to a container and wait for its whole answer; raises TooSlow, TooLarge or OSError."""
    end = time.monotonic() + seconds
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        received = bytearray()
        while chunk := response.read1(_CHUNK):
            received += chunk
            if len(received) > most_bytes:
                raise TooLarge(len(received))
            if time.monotonic() > end:
                raise TooSlow
        kind = response.getheader("Content-Type") or "application/json"
        return RawAnswer(response.status, bytes(received), kind)
    except TimeoutError as error:
        raise TooSlow from error
    except http.client.HTTPException as error:
        raise ConnectionError(f"the container broke off its answer: {error}") from error
    finally:
        connection.close()


def is_healthy(url: str) -> bool:
    """Whether a health route answers 200 within ten seconds (the limit Google documents)."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
