"""A container for the control plane's tests: a real HTTP server that does what each instance tells it to."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.cloud.vertex.containers import ContainerSpec, NeverReady


class _Handler(BaseHTTPRequestHandler):
    """Answers each instance back, with the archive's content and the replica's folder.

    The first instance can ask for more: ``status`` and ``body``, ``bytes``, ``seconds`` to wait, or to
    ``cut`` the connection.
    """

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        """Tests read answers, not logs."""

    def do_POST(self) -> None:
        received = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Content-Type"], received))
        instances = json.loads(received)["instances"]
        first = instances[0] if isinstance(instances[0], dict) else {}
        self.server.busy += 1
        time.sleep(first.get("seconds", 0))
        self.server.busy -= 1
        if first.get("cut"):
            self.close_connection = True
            return
        body = json.dumps({"predictions": [self._predict(instance) for instance in instances]}).encode()
        if "body" in first:
            body = first["body"].encode()
        self.send_response(int(first.get("status", 200)))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _predict(self, instance: Any) -> Any:
        if isinstance(instance, dict) and "bytes" in instance:
            return "x" * int(instance["bytes"])
        return {"instance": instance, "archive": self.server.archive, "replica": self.server.replica}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, archive: str, replica: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archive = archive
        self.replica = replica
        self.requests: list[tuple[str, str, bytes]] = []
        self.busy = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that gave up waiting is what some tests are about."""


@dataclass
class StubContainer:
    """``interrupted`` counts the requests that were not answered yet when it was told to stop."""

    spec: ContainerSpec
    server: _Server
    running: list[StubContainer]
    interrupted: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def requests(self) -> list[tuple[str, str, bytes]]:
        return list(self.server.requests)

    def is_running(self) -> bool:
        return self in self.running

    def stop(self) -> None:
        if self in self.running:
            self.running.remove(self)
            self.interrupted = self.server.busy
            self.server.shutdown()
            self.server.server_close()


@dataclass
class StubContainers:
    """Starts stubs, remembers them, and can be told to hold starts back or to let them fail."""

    started: list[StubContainer] = field(default_factory=list)
    running: list[StubContainer] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    most: int = 100

    def __post_init__(self) -> None:
        self.gate.set()

    def start(self, spec: ContainerSpec, stop: threading.Event) -> StubContainer:
        while not self.gate.wait(0.02):
            if stop.is_set():
                raise NeverReady(["given up"])
        content = spec.archive.read_text()
        if content.startswith("broken") or len(self.running) == self.most:
            words = "ModuleNotFoundError: No module named 'diffusers'"
            raise NeverReady([words], spec.folder / "model_log.log")
        container = StubContainer(spec, _Server(content, spec.folder.name), self.running)
        self.started.append(container)
        self.running.append(container)
        return container
