"""The doctor names a management API that runs other people's Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.doctor.findings import Finding
from pipeline.doctor.management import check_management, check_running_management
from pipeline.doctor.subject import Subject

ROOT = Path(__file__).parents[2]
CLOSED = "allowed_urls=none\nworkflow_store=/dev/null\n"


def found(properties: Path) -> Finding:
    subject = Subject("us-central1", "", "", "model.mar", None, "n1", None, 0, config_properties=properties)
    (finding,) = check_management(subject)
    return finding


@pytest.mark.parametrize(
    "text",
    [
        "",
        "allowed_urls=file://.*\nworkflow_store=/dev/null",
        "allowed_urls=none\n",
        f"{CLOSED}#allowed_urls=none\nallowed_urls=https://.*",
        f"{CLOSED}management_address=http://0.0.0.0:8081",
        f"{CLOSED}management_address = http://10.0.0.1:8081",
        f"{CLOSED}management_address=http://127.0.0.1.elsewhere.example:8081",
    ],
)
def test_an_open_configuration_is_named_and_mended(tmp_path: Path, text: str) -> None:
    properties = tmp_path / "config.properties"
    properties.write_text(text)
    finding = found(properties)
    assert (finding.failure, finding.level) == ("open_management", "problem")
    assert str(properties) in finding.sentence
    assert finding.fix is not None
    finding.fix()
    assert found(properties).level == "ok"


def test_the_repositorys_own_configuration_is_closed() -> None:
    assert found(ROOT / "model_artifacts" / "config.properties").level == "ok"


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()


def test_a_running_server_that_asks_for_no_token_is_named() -> None:
    with answering(b'{"models": []}') as address:
        (finding,) = check_running_management(address)
    assert finding.failure == "management_listens"
    assert address in finding.sentence


@pytest.mark.parametrize(("body", "status"), [(b"{}", 200), (b"not json", 200), (b'{"models": []}', 400)])
def test_another_answer_is_no_finding(body: bytes, status: int) -> None:
    with answering(body, status) as address:
        assert check_running_management(address) == []
    assert check_running_management(address) == []  # nobody listens any more
