"""The gate that lets running requests finish before a stop."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from handler.doors.torchserve.drain import Gate

CLOSING = {"instances": [{"drain": "drain-secret"}]}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "drain-secret"))


@pytest.mark.parametrize(
    "row",
    [
        {"body": CLOSING},
        {"body": json.dumps(CLOSING)},
        {"body": bytearray(json.dumps(CLOSING).encode())},
        CLOSING,
    ],
)
def test_only_who_knows_the_name_closes_it(gate: Gate, row: Any) -> None:
    assert gate.asks_to_close(row)


@pytest.mark.parametrize(
    "row",
    [
        {"body": {"instances": [{"drain": "guess"}]}},
        {"body": {"instances": [{"drain": "drain-secret"}, {"prompt": "x"}]}},
        {"body": {"instances": [{"prompt": "drain-secret"}]}},
        {"body": b"{not json"},
        {"body": b"[" * 1000},
        {"body": b'{"instances": [{"drain": "drain-secret"}]}' + b" " * 1000},
        {"body": None},
        {},
        "text",
    ],
)
def test_nothing_else_does(gate: Gate, row: Any) -> None:
    assert not gate.asks_to_close(row)


def test_closed_for_every_worker_that_knows_the_file(gate: Gate, tmp_path: Path) -> None:
    other_worker = Gate(str(tmp_path / "drain-secret"))
    assert not other_worker.is_closed()
    assert gate.close(running=2) == {"predictions": [{"pid": os.getpid(), "running": 2}]}
    assert gate.is_closed()
    assert other_worker.is_closed()


@pytest.mark.parametrize("nowhere", [None, ""])
def test_without_a_file_there_is_no_gate(nowhere: str | None) -> None:
    gate = Gate(nowhere)
    assert not gate.asks_to_close({"body": {"instances": [{"drain": ""}]}})
    gate.close(running=0)
    assert not gate.is_closed()
