"""The other services of Google's that are asked: their answers as documented, from a small real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from pipeline.deploy.config import load_config
from pipeline.deploy.connection import Connection
from pipeline.deploy.undo import container_lines
from pipeline.doctor.online import check_cloud
from pipeline.doctor.subject import subject_of

TODAY = date(2026, 11, 21)
P100_QUOTA = "aiplatform.googleapis.com%2Fcustom_model_serving_nvidia_p100_gpus"


class Answers(dict[str, Any]):
    """Documents by the end of the path; anything else is 404."""

    asked: Any = None


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.answers.asked = json.loads(body) if body else None
        found = [answer for end, answer in self.server.answers.items() if self.path.endswith(end)]
        content = json.dumps(found[0] if found else {"error": {"message": "not found"}}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def google(connection: Connection, answers: Answers) -> Iterator[Connection]:
    """A connection whose further services are the answers of this test."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answers = answers  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    accounts = f"http://127.0.0.1:{server.server_address[1]}"
    with httpx.Client(trust_env=False) as web:
        yield replace(connection, cloud="google", accounts=accounts, web=web)
    server.shutdown()
    server.server_close()


def levels(connection: Connection, tmp_path: Any) -> dict[str, tuple[str, str]]:
    config = load_config(None, {}, "p100", TODAY)
    findings = check_cloud(connection, subject_of(config, tmp_path / "model.mar"), {})
    return {finding.check: (finding.level, finding.sentence) for finding in findings}


def test_a_disabled_api_missing_permissions_and_no_quota(
    google: Connection, answers: Answers, tmp_path
) -> None:
    answers["services/aiplatform.googleapis.com"] = {"state": "ENABLED"}
    answers["services/storage.googleapis.com"] = {"state": "DISABLED"}
    answers[":testIamPermissions"] = {"permissions": ["aiplatform.models.upload"]}
    buckets = [
        {"effectiveLimit": "8", "dimensions": {"region": "us-east1"}},
        {"effectiveLimit": "0", "dimensions": {"region": "us-central1"}},
    ]
    answers[P100_QUOTA] = {"consumerQuotaLimits": [{"quotaBuckets": buckets}]}
    found = levels(google, tmp_path)
    assert found["API"] == ("problem", "the API storage.googleapis.com is DISABLED in project marquee-local")
    assert found["permissions"][0] == "problem"
    assert "aiplatform.endpoints.deploy" in found["permissions"][1]
    assert "aiplatform.models.upload" not in found["permissions"][1]
    assert found["quota"][0] == "problem"
    assert "allows 0, and the deployment needs 1" in found["quota"][1]


def test_what_cannot_be_asked_is_a_notice_and_no_alarm(google: Connection, tmp_path) -> None:
    found = levels(google, tmp_path)
    assert {found[check][0] for check in ("API", "permissions", "quota")} == {"notice"}


def test_a_failed_deployment_reads_the_containers_log(google: Connection, answers: Answers) -> None:
    answers["/v2/entries:list"] = {
        "entries": [{"textPayload": "No module named 'diffusers'"}, {"jsonPayload": {"message": "loading"}}]
    }
    assert container_lines(google, "marquee", "42") == ["loading", "No module named 'diffusers'"]
    assert 'labels.deployed_model_id="42"' in answers.asked["filter"]
    answers.clear()
    assert container_lines(google, "marquee", "42") == []
