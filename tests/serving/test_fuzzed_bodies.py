"""Hostile requests beside good ones: all are answered, none by 500, and good clients notice nothing."""

from __future__ import annotations

import collections
import contextlib
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from calls import difference, post
from fuzzing import fuzzed
from raw_http import RawClient, request

from pipeline.serving.server import RunningServer

CALLERS = 8
PROMPTS = ("a red circle on a black background", "a blue square on a yellow background", "a green star")
# A form is read by TorchServe's frontend, which answers 500 for one that is none (docs/security.md).
FRONTENDS_OWN = {"form"}


@pytest.fixture(params=["server", "continuous_server"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def running(mode: str, request: pytest.FixtureRequest) -> RunningServer:
    server: RunningServer = request.getfixturevalue(mode)
    return server


def good(number: int) -> dict[str, object]:
    instance = {"prompt": PROMPTS[number], "seed": number, "num_inference_steps": 3, "output_format": "png"}
    return {"instances": [instance]}


def answer(port: int, sent: bytes) -> tuple[int, bytes] | None:
    """Status and body, None where the connection was closed; a TimeoutError where neither came."""
    with RawClient(port) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was read
            client.send(sent)
        got = client.answer()
        while got is not None and got[0] == 100:
            got = client.answer()
    return None if got is None else (got[0], got[2] or b"")


def is_handlers(body: bytes) -> bool:
    try:
        return "error" in json.loads(body)
    except ValueError:
        return False


def fault_of(kind: str, got: tuple[int, bytes] | None) -> str | None:
    """What should not have been answered so; None where all is well."""
    if got is None:
        return None if kind in FRONTENDS_OWN else f"{kind}: closed without an answer"
    status, body = got
    if status >= 500 and (is_handlers(body) or kind not in FRONTENDS_OWN):
        return f"{kind}: {status} {body[:200]!r}"
    if status == 200 and "error" in json.loads(body):
        return f"{kind}: an error under status 200: {body[:200]!r}"
    return None


@pytest.mark.timeout(3600)
def test_hostile_requests_harm_nobody(running: RunningServer, mode: str, pytestconfig: pytest.Config) -> None:
    # Half of them in each mode, and not the same ones.
    count = pytestconfig.getoption("--fuzzed", default=300) // 2
    first = 0 if mode == "server" else count
    alone = [post(running.predict_url, good(number)).json()["predictions"][0] for number in range(3)]
    workers = running.worker_state().pids
    over = threading.Event()
    statuses: collections.Counter[object] = collections.Counter()

    def be_good(number: int) -> int:
        drawn = 0
        while not over.is_set() or drawn == 0:
            got = post(running.predict_url, good(number))
            assert got.status_code == 200, got.text
            assert difference(got.json()["predictions"][0], alone[number]) < 1.0
            drawn += 1
            over.wait(0.2)
        return drawn

    def be_hostile(number: int) -> str | None:
        kind, sent = fuzzed(random.Random(number))
        got = answer(running.ports.inference, sent)
        statuses[got and got[0]] += 1
        fault = fault_of(kind, got)
        return None if fault is None else f"number {number}: {fault}"

    with ThreadPoolExecutor(CALLERS + len(PROMPTS)) as callers:
        customers = [callers.submit(be_good, number) for number in range(len(PROMPTS))]
        try:
            faults = [fault for fault in callers.map(be_hostile, range(first, first + count)) if fault]
        finally:
            over.set()
        drawn = [customer.result() for customer in customers]
    print(f"{count} hostile requests beside {sum(drawn)} good ones: {dict(statuses)}")
    assert not faults, "\n".join(faults)
    assert running.worker_state().pids == workers


@pytest.mark.parametrize(
    "sent",
    [
        request(
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", "multipart/form-data; boundary=x"
        ),
        request(b"a=%zz", "application/x-www-form-urlencoded"),
        request(b"{}", target="POST *"),
    ],
)
def test_what_torchserves_frontend_answers_itself(server: RunningServer, sent: bytes) -> None:
    """As docs/security.md says; the handler is not asked."""
    got = answer(server.ports.inference, sent)
    assert got is not None
    assert got[0] == 500
    assert not is_handlers(got[1])
