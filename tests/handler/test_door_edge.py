"""The door answers whatever TorchServe sends it, and raises no exception."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from door_batches import handle, make_context
from ts.context import Context

from handler.doors.torchserve.continuous import ContinuousBatches
from handler.doors.torchserve.door import Door


class Deaf(Context):  # type: ignore[misc]
    """A context that fails where an answer's status is told."""

    def set_response_status(self, *_: Any) -> None:
        raise IndexError("there is no such request")


@pytest.mark.parametrize("continuous", [False, True])
def test_a_context_that_breaks_still_gets_every_row(
    second_door: Door, archive_root: Path, continuous: bool
) -> None:
    context = make_context(archive_root, 2)
    context.__class__ = Deaf
    second_door._batches = ContinuousBatches(second_door._book) if continuous else None
    texts = second_door.handle([{"body": {"instances": []}}] * 2, context)
    assert [json.loads(str(text))["error"]["code"] for text in texts] == ["internal", "internal"]


@pytest.mark.parametrize("row", [None, 5, [], {"body": object()}])
def test_rows_of_any_kind_are_answered(second_door: Door, archive_root: Path, row: Any) -> None:
    context = make_context(archive_root, 2)
    context.request_ids = None
    assert len(second_door.handle([row, {"body": {"instances": []}}], context)) == 2


def test_metrics_that_break_are_logged_once(
    second_door: Door, archive_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second_door._publisher = object()  # type: ignore[assignment]  # has no publish
    for _ in range(2):
        assert handle(second_door, archive_root, [{"body": {"instances": ["a"]}}])[0][0] == 200
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_only_the_thread_that_draws_keeps_openmp_helpers(archive_root: Path, tmp_path: Path) -> None:
    """With helpers of the thread that loaded beside them, two cores would be too few for all to spin.

    Two threads that are not Python's: one of torch's own and the engine's helper; a third is the loader's.
    """
    for name in ("model", "loras", "MAR-INF"):
        if (archive_root / name).exists():
            (tmp_path / name).symlink_to(archive_root / name)
    config = (archive_root / "model-config.yaml").read_text().replace("threads: 1", "threads: 2")
    (tmp_path / "model-config.yaml").write_text(config)
    program = """
import os, sys, threading
from pathlib import Path
import torch
from door_batches import handle, make_context
from handler.doors.torchserve.door import Door

def helpers():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

root, before, door = Path(sys.argv[1]), helpers(), Door()
door.initialize(make_context(root, 0))
size = {"width": 128, "height": 64}
assert handle(door, root, [{"body": {"instances": [{"prompt": "a", **size}]}}])[0][0] == 200
print(helpers() - before)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stdout == "2\n", ended.stderr
