"""Continuous batching under real TorchServe: join, leave, hang up, crash, and what Prometheus sees of it."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import numpy
import psutil
import pytest
from PIL import Image

from pipeline.serving.server import RunningServer

pytestmark = pytest.mark.torchserve


def body(number: int, **fields: Any) -> dict[str, Any]:
    schedulers = ["PNDM", "Euler", "DPM++ 2M", "LCM", "DDIM", "UniPC", "Euler ancestral"]
    instance = {
        "prompt": f"a red circle on a {['blue', 'green', 'white'][number % 3]} background",
        "seed": number,
        "num_inference_steps": 5 + 3 * number,
        "guidance_scale": 1.0 + number % 3,
        "scheduler": schedulers[number % 7],
        "output_format": "png",
    }
    return {"instances": [{**instance, **fields}]}


def post(server: RunningServer, sent: Any) -> httpx.Response:
    return httpx.post(server.predict_url, json=sent, timeout=300)


def pixels(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(prediction)))).astype(int)


def metric(server: RunningServer, name: str) -> float:
    """The sum of a metric's series; 0 where it is not exported yet."""
    text = httpx.get(server.metrics_url, timeout=60).text
    return sum(float(value) for value in re.findall(rf"(?m)^marquee_{name}{{.*}} (\S+)$", text))


def wait_for(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)


def test_mixed_requests_share_steps_and_get_their_own_pictures(continuous_server: RunningServer) -> None:
    alone = [pixels(post(continuous_server, body(number))) for number in range(8)]
    with ThreadPoolExecutor(9) as callers:
        together = [callers.submit(post, continuous_server, body(number)) for number in range(8)]
        wrong = callers.submit(post, continuous_server, {"instances": [{"prompt": ""}]})
    for number, answer in enumerate(together):
        distance = numpy.abs(pixels(answer.result()) - alone[number]).max(axis=-1)
        assert (distance <= 1).mean() >= 0.999, f"request {number}"
    assert wrong.result().status_code == 400
    assert wrong.result().json()["error"]["code"] == "invalid_request"


def test_a_short_request_overtakes_a_long_one(continuous_server: RunningServer) -> None:
    finished: list[str] = []

    def timed(name: str, steps: int) -> None:
        assert post(continuous_server, body(0, num_inference_steps=steps)).status_code == 200
        finished.append(name)

    with ThreadPoolExecutor(2) as callers:
        callers.submit(timed, "long", 100)
        time.sleep(0.1)
        callers.submit(timed, "short", 2)
    assert finished == ["short", "long"]


def test_a_client_that_hangs_up_frees_its_place(continuous_server: RunningServer) -> None:
    post(continuous_server, body(0))
    before = metric(continuous_server, "cancelled")
    text = json.dumps(body(0, num_inference_steps=100)).encode()
    lines = ["POST /predictions/model HTTP/1.1", "Host: x", "Content-Type: application/json"]
    head = "\r\n".join([*lines, f"Content-Length: {len(text)}", "", ""])
    with socket.create_connection(("127.0.0.1", continuous_server.ports.inference)) as client:
        client.sendall(head.encode() + text)
        assert b"200" in client.recv(100), "the headers leave with the first step"

    def cancelled() -> bool:
        post(continuous_server, body(0, num_inference_steps=2))
        return metric(continuous_server, "cancelled") == before + 1

    wait_for(cancelled)


def test_a_stream_tells_events_and_previews_and_then_the_plain_answer(
    continuous_server: RunningServer,
) -> None:
    asked = body(4, num_inference_steps=40)
    plain = pixels(post(continuous_server, asked))
    sent = {"instances": [{**asked["instances"][0], "previews": 2}], "stream": True}
    with httpx.stream("POST", continuous_server.predict_url, json=sent, timeout=300) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.iter_lines()]
    names = [line["event"] for line in lines]
    assert names[:2] == ["queued", "started"]
    assert names[-2:] == ["done", "answer"]
    assert [line["step"] for line in lines if line["event"] == "step"] == list(range(1, 41))
    previews = [line for line in lines if line["event"] == "preview"]
    assert [preview["preview"] for preview in previews] == [1, 2]
    for preview in previews:
        assert Image.open(io.BytesIO(base64.b64decode(preview["image"]))).format == "JPEG"
    drawn = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(lines[-1]["predictions"][0])))).astype(int)
    assert (numpy.abs(drawn - plain).max(axis=-1) <= 1).mean() >= 0.999
    refused = post(continuous_server, {"instances": [""], "stream": True})
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")


def test_a_client_that_hangs_up_on_a_stream_frees_its_place(continuous_server: RunningServer) -> None:
    before = metric(continuous_server, "cancelled")
    sent = {**body(0, num_inference_steps=100), "stream": True}
    sent["instances"] *= 4
    with httpx.stream("POST", continuous_server.predict_url, json=sent, timeout=300) as answer:
        assert "queued" in next(answer.iter_lines())

    def cancelled() -> bool:
        post(continuous_server, body(0, num_inference_steps=2))
        return metric(continuous_server, "cancelled") == before + 4

    wait_for(cancelled)


def test_prometheus_sees_the_engine(continuous_server: RunningServer) -> None:
    def published() -> bool:
        post(continuous_server, body(1))
        return (
            metric(continuous_server, "finished") > 0
            and metric(continuous_server, "picture_seconds_count") > 0
        )

    wait_for(published)
    assert metric(continuous_server, "admitted") >= metric(continuous_server, "finished")
    assert metric(continuous_server, "image_steps") >= metric(continuous_server, "unet_calls") > 0
    assert metric(continuous_server, "memory_bytes") > 0
    assert 0 <= metric(continuous_server, "batch_occupancy") <= 1


def test_a_worker_killed_mid_picture_ends_its_clients_and_comes_back(
    continuous_server: RunningServer,
) -> None:
    many = {"instances": body(0, num_inference_steps=100)["instances"] * 16}
    pids = continuous_server.worker_state().pids
    with ExitStack() as streams:
        doomed = [
            streams.enter_context(httpx.stream("POST", continuous_server.predict_url, json=many, timeout=300))
            for _ in range(2)  # each comes back with its headers, after its first step
        ]
        for pid in pids:
            psutil.Process(pid).kill()
        for one in doomed:
            assert one.status_code == 200
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                one.read()
    assert post(continuous_server, body(3)).status_code == 200
