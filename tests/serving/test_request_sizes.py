"""Bodies that are too large or hold too much, in real TorchServe, which would parse JSON itself."""

from __future__ import annotations

import httpx
import psutil
import pytest
from calls import post

from pipeline.serving.server import RunningServer

GOOD = {"instances": [{"prompt": "a red circle", "num_inference_steps": 2}]}


def send(server: RunningServer, body: bytes) -> httpx.Response:
    return httpx.post(
        server.predict_url, content=body, headers={"Content-Type": "application/json"}, timeout=300
    )


def instances(size: int) -> bytes:
    return b'{"instances":[' + b"{}," * (size // 3) + b"{}]}"


def test_millions_of_empty_instances_cost_no_memory(server: RunningServer) -> None:
    (pid,) = server.worker_state().pids
    worker = psutil.Process(pid)
    before = worker.memory_info().rss
    answer = send(server, instances(9_900_000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_values")
    # The body itself, and what TorchServe copies of it; as objects they took 300 MB.
    assert worker.memory_info().rss - before < 100_000_000
    assert post(server.predict_url, GOOD).status_code == 200


@pytest.mark.parametrize("size", [10_000_001, 16_000_000])
def test_over_the_handlers_limit_the_answer_names_it(server: RunningServer, size: int) -> None:
    answer = send(server, b" " * size)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "10000000" in answer.json()["error"]["message"]


def test_over_torchserves_limit_it_refuses_by_itself(server: RunningServer) -> None:
    assert send(server, instances(60_000_000)).status_code == 413
    assert post(server.predict_url, GOOD).status_code == 200


def test_a_key_given_twice_is_refused_in_json_too(server: RunningServer) -> None:
    answer = send(server, b'{"instances": [{"prompt": "a", "prompt": "b"}]}')
    assert answer.status_code == 400
    assert answer.json()["error"]["problems"][0]["message"] == "prompt is given 2 times in one object"
