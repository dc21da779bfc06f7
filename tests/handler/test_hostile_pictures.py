"""Hundreds of hostile pictures through the door: each is named, none costs memory or another's picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile_pictures import Named, damaged_pictures, odd_pictures, refused_pictures, wrong_sizes
from sent_pictures import right_half, sent, slope

from handler.contract.problem import Refusal

Ask = Callable[..., list[tuple[int, Any]]]
REFUSED, ODD = list(refused_pictures()), list(odd_pictures())
GOOD = {"prompt": "a cat", "seed": 5, "num_inference_steps": 2, "image": sent(slope(32, 32)), "strength": 1}
BATCH = 40
MOST_BYTES = 64 << 20
"""Of the process beyond what it held: a picture of the most pixels that the archive allows takes 20 MB."""


def peak(pid: int) -> int:
    """The most bytes of memory that a process has held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


@pytest.fixture
def flat_memory() -> Any:
    """The test fails where the process grows."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is held now
    before = peak(os.getpid())
    yield
    assert peak(os.getpid()) - before < MOST_BYTES


def asking(field: str, value: Any) -> dict[str, Any]:
    picture = {"image": value} if field == "image" else {"image": sent(slope(32, 32)), "mask_image": value}
    return {"instances": [{"prompt": "a cat", "seed": 5, "num_inference_steps": 2, **picture}]}


def batches(ask: Ask, field: str, named: Sequence[Named]) -> list[tuple[str, int, Any]]:
    """The answers to all these; in the middle of each batch stands a good request, which must not notice."""
    ((_, alone),) = ask({"instances": [GOOD]})
    answers = []
    for first in range(0, len(named), BATCH):
        part = named[first : first + BATCH]
        bodies = [asking(field, value) for _, value in part]
        middle = len(bodies) // 2
        got = ask(*bodies[:middle], {"instances": [GOOD]}, *bodies[middle:])
        assert got.pop(middle) == (200, alone)
        answers += [(name, status, answer) for (name, _), (status, answer) in zip(part, got, strict=True)]
    return answers


def test_there_are_hundreds() -> None:
    assert len(REFUSED) >= 200
    assert len({name for name, _ in REFUSED}) > 150


@pytest.mark.parametrize("field", ["image", "mask_image"])
def test_each_is_refused_by_name(ask: Ask, field: str, flat_memory: None) -> None:
    for name, status, answer in batches(ask, field, REFUSED):
        assert status in (400, 413), (name, answer)
        problems = answer["error"]["problems"]
        assert [problem["field"] for problem in problems] == [field], (name, answer)
        assert problems[0]["message"].startswith(field), name
        assert problems[0]["allowed"], name
        assert len(str(answer)) < 2000, name


def test_unusual_pictures_are_drawn_from(ask: Ask, flat_memory: None) -> None:
    for name, value in ODD:
        ((status, answer),) = ask(asking("image", value))
        assert status == 200, (name, answer)


def test_a_size_that_cannot_be_drawn_is_named_with_one_that_can(ask: Ask) -> None:
    named = list(wrong_sizes())
    for (name, _), (status, answer) in zip(
        named, ask(*[asking("image", value) for _, value in named]), strict=True
    ):
        (problem,) = answer["error"]["problems"]
        assert (status, problem["field"]) == (400, "image"), name
        assert "send width and height, for example" in problem["message"]


def test_damaged_pictures_are_read_or_refused(door: Any, flat_memory: None) -> None:
    for name, value in damaged_pictures(90):
        request = door._parse({"body": asking("image", value)})
        if isinstance(request, Refusal):
            assert (request.status, [one.field for one in request.problems]) == (400, ["image"]), name


def test_a_request_of_many_pictures_is_bounded_as_a_whole(ask: Ask, flat_memory: None) -> None:
    large = sent(slope(1000, 1000))
    instance = {"prompt": "a cat", "image": large, "width": 32, "height": 32}
    ((status, answer),) = ask({"instances": [instance, instance, instance]})
    assert status == 400
    (problem,) = answer["error"]["problems"]
    assert (problem["instance"], problem["field"]) == (2, "image")
    assert "2097152 pixels together" in problem["message"]


def test_waiting_jobs_keep_small_pictures(door: Any) -> None:
    instance = {"prompt": "a", "image": sent(slope(900, 900)), "mask_image": sent(right_half(900, 900))}
    request = door._parse({"body": {"instances": [{**instance, "width": 64, "height": 40}]}})
    (job,) = request.jobs
    assert (job.image.image.size, job.mask_image.image.size) == ((64, 40), (64, 40))
