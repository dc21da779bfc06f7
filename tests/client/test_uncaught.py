"""A script of a user's that does not catch the client's errors ends with one line and its cure."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ASK = """
from pipeline.client import Client
with Client({url!r}) as client:
    client.predict(["a red circle"])
"""
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """A server's address where every connection gets these bytes and is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(content)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def run(url: str) -> list[str]:
    """The lines that Python writes for the uncaught error."""
    done = subprocess.run([sys.executable, "-c", ASK.format(url=url)], capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.splitlines()


def own_lines(lines: list[str]) -> list[str]:
    """Without the frames, which are indented."""
    return [line for line in lines if not line.startswith(" ")]


def test_an_absent_server_is_one_line_and_a_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    lines = run(url)
    assert own_lines(lines) == [
        "Traceback (most recent call last):",
        f"pipeline.client.errors.ServerUnreachable: no server listens at {url}",
        "cure: start one: marquee serve",
    ]
    assert len(lines) < 30


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no json", "the answer is no JSON"),
        (b'{"predictions": ["%"]}', "a prediction is no base64"),
        (b'{"predictions": ["YWJj"]}', "3 bytes came that are no"),
    ],
)
def test_an_answer_that_cannot_be_used_is_one_line(body: bytes, message: str) -> None:
    head = HEADERS + f"Content-Length: {len(body)}\r\n\r\n".encode()
    with answering(head + body) as url:
        traceback, error = own_lines(run(url))
    assert traceback.startswith("Traceback")
    assert error.startswith(f"pipeline.client.errors.BadAnswer: {message}")
