"""`marquee serve --door http`: the archive's HTTP door until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from pipeline.serving.settings import ServeOptions


DOORS = ("torchserve", "http")


def check_door(door: str, management_port: int) -> None:
    """Raises MarqueeError where there is no such door, or it has no management port."""
    if door not in DOORS:
        raise MarqueeError(f"--door {door}: there are {' and '.join(DOORS)}")
    if door == "http" and management_port:
        raise MarqueeError("--management-port is TorchServe's; the HTTP door has none", "leave it out")


def serve_http(mar: Path, options: ServeOptions, drain_seconds: float) -> None:
    """Serve until a signal, then let running requests take ``drain_seconds``; prints as it goes."""
    from pipeline.serving.http_door import start_http

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"starting the HTTP door with {mar}", flush=True)
    server = start_http(mar, options)
    stopping = threading.Event()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        print(f"ready at {server.url}   documentation {server.url}/docs   log {server.log}", flush=True)
        while not stopping.wait(1.0):
            if not server.is_running():
                raise MarqueeError(f"the HTTP door ended with code {server.process.returncode}")
        print("stopping: new requests get 503, running ones finish", flush=True)
        if not server.stop(drain_seconds):
            raise MarqueeError(f"some requests were still running after {drain_seconds:g} s and were cut off")
        print("stopped", flush=True)
    finally:
        server.stop()
