"""Other users and web pages cannot change a running server."""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
from attacks import (
    MARK,
    forging,
    reachable_ports,
    registrations,
    send_marked_prompts,
    statuses,
    write_evil_archives,
)
from calls import post

from pipeline.serving.server import RunningServer
from pipeline.serving.worker_state import UNIX, ask_management

GOOD = {"instances": [{"prompt": "a red circle", "num_inference_steps": 2, "seed": 1}]}


def test_no_archive_is_registered_and_nothing_executed(server: RunningServer, tmp_path: Path) -> None:
    archives, trace = write_evil_archives(tmp_path)
    paths = registrations(archives)
    ports = reachable_ports(psutil.Process(server.pid))
    assert ports == {server.ports.inference, server.ports.metrics}
    unix = httpx.HTTPTransport(uds=server.management_url.removeprefix(UNIX))
    with httpx.Client(transport=unix, timeout=60) as owner, httpx.Client(timeout=60) as page:
        assert statuses(owner, "http://management", paths) <= {400, 404, 405}
        for port in ports:
            assert statuses(page, f"http://127.0.0.1:{port}", paths) <= {400, 404, 405}
    assert not trace.exists()
    assert len(ask_management(server.management_url, "/models").json()["models"]) == 1
    assert post(server.predict_url, GOOD).status_code == 200


def test_the_management_socket_is_this_users_alone(server: RunningServer) -> None:
    control = Path(server.management_url.removeprefix(UNIX)).parent
    assert control.stat().st_mode & 0o777 == 0o700


def test_forged_lines_are_no_deaths_and_prompts_stay_out_of_the_logs(server: RunningServer) -> None:
    before = server.worker_ends()
    with forging(server.ports.inference):
        told = send_marked_prompts(server.ports.inference)
    assert len(told) > 50
    assert server.worker_ends() == before
    assert post(server.predict_url, GOOD).status_code == 200
    written = {log.name: log.read_text(errors="replace") for log in server.logs.iterdir()}
    assert "Torch worker started" in written["model_log.log"]
    for name, text in written.items():
        assert MARK not in text, name
        assert "Retry worker" not in text, name


def test_javas_heap_has_a_limit(server: RunningServer) -> None:
    (java,) = [child for child in psutil.Process(server.pid).children() if "java" in child.name()]
    assert any(word.startswith("-Xmx") for word in java.cmdline())
