"""Draining against a small server that answers as TorchServe does: from a full queue, past a proxy."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.serving.drain import close_and_wait
from pipeline.serving.worker_state import read_worker_state

FULL = {"code": 503, "type": "ServiceUnavailableException", "message": "Model is busy"}
IDLE = {"predictions": [{"pid": 7, "running": 0}]}


@dataclass
class Server:
    """Answers each POST with the next of ``answers``; notes whether the drain file was there by then."""

    drain_file: Path
    answers: list[tuple[int, Any]]
    url: str = ""
    was_closed: list[bool] = field(default_factory=list)

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if method == "POST":
            self.was_closed.append(self.drain_file.exists())
            return self.answers.pop(0)
        if path != "/models/model":
            return 404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found"}
        return 200, [{"workers": [{"status": "READY", "pid": 7}]}]


@contextmanager
def torchserve(drain_file: Path, *answers: tuple[int, Any]) -> Iterator[Server]:
    server = Server(drain_file, list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def do_GET(self) -> None:
            status, body = server.answer(self.command, self.path)
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{web.server_address[1]}"
        try:
            yield server
        finally:
            web.shutdown()


def close(server: Server) -> bool:
    return close_and_wait(f"{server.url}/predictions/model", server.url, server.drain_file, seconds=60.0)


def test_a_full_queue_closes_the_gate_all_the_same(tmp_path: Path) -> None:
    with torchserve(tmp_path / "drain-x", (503, FULL), (200, IDLE)) as server:
        assert close(server)
    assert server.was_closed == [False, True]


def test_the_gate_is_left_to_the_queue_where_there_is_room(tmp_path: Path) -> None:
    with torchserve(tmp_path / "drain-x", (200, IDLE)) as server:
        assert close(server)
    assert not server.drain_file.exists()  # the handler makes it, after what came before was taken in


def test_no_proxy_stands_between_us_and_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")  # where nobody listens
    with torchserve(tmp_path / "drain-x", (200, IDLE)) as server:
        assert read_worker_state(server.url, "model").pids == (7,)
        assert close(server)
    assert server.was_closed == [False]


def test_a_model_that_is_not_registered_is_told_from_a_server_that_is_not_there(tmp_path: Path) -> None:
    with torchserve(tmp_path / "drain-x") as server:
        assert read_worker_state(server.url, "other").missing
    assert not read_worker_state(server.url, "other").missing
