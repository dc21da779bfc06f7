"""Requests of several jobs through the engine, as plain batches and as iterations of continuous batching."""

from __future__ import annotations

import time

import pytest
import torch
from driving import nearly_equal, pixels
from frontend import Answer, Frontend, Gate, codes, long_job, until
from tiny import layers, make_job

from handler.contract.job import Failure, Job
from handler.doors.torchserve.continuous import ReplyChunk
from handler.doors.torchserve.request_book import LONGEST_CALL_SECONDS, RequestBook

Oracle = list[tuple[Job, torch.Tensor]]


def test_a_plain_batch_of_mixed_requests_is_answered_whole(book: RequestBook[Answer], oracle: Oracle) -> None:
    chosen = {"one": oracle[:1], "three": oracle[1:4], "none": [], "two": oracle[4:6]}
    for name, pairs in chosen.items():
        book.admit(name, [job for job, _ in pairs], list)
    answers = book.finish_all()
    assert sorted(answers) == sorted(chosen)
    for name, pairs in chosen.items():
        assert [
            nearly_equal(pixels(got), wanted) for got, (_, wanted) in zip(answers[name], pairs, strict=True)
        ] == [True] * len(pairs)
    assert book.open_requests == []


def test_a_request_that_does_not_fit_the_queue_whole_takes_no_place(book: RequestBook[Answer]) -> None:
    book.admit("big", [make_job(seed=seed) for seed in range(8)], list)
    book.admit("bigger", [make_job(seed=seed) for seed in range(3)], list)
    book.admit("small", [make_job(seed=seed) for seed in range(2)], list)
    answers = book.finish_all()
    assert codes(answers["big"]) == ["picture"] * 8
    assert codes(answers["bigger"]) == ["overloaded"] * 3
    assert codes(answers["small"]) == ["picture"] * 2
    refused = answers["bigger"][0]
    assert isinstance(refused, Failure)
    assert refused.retry_after_seconds is not None


def test_a_batch_without_time_left_fails_only_what_is_not_drawn(book: RequestBook[Answer]) -> None:
    book.admit("long", [long_job()], list)
    book.admit("short", [make_job(num_inference_steps=1, scheduler="DDIM")], list)
    hook = layers(book.engine.model.unet).register_forward_hook(lambda *_: time.sleep(0.1))
    answers = book.finish_all(seconds=2)
    hook.remove()
    assert {name: codes(answer) for name, answer in answers.items()} == {
        "long": ["took_too_long"],
        "short": ["picture"],
    }
    until(lambda: not book.engine.busy)


def test_requests_join_and_leave_between_calls(book: RequestBook[Answer], oracle: Oracle) -> None:
    frontend, wanted = (
        Frontend(book),
        {f"r{number}": oracle[number : number + 2] for number in range(0, 8, 2)},
    )
    for name, pairs in wanted.items():
        frontend.call(**{name: [job for job, _ in pairs]})
    while frontend.names:
        frontend.call()
    for name, pairs in wanted.items():
        *kept, last = frontend.chunks[name]
        assert kept == [ReplyChunk(None, False, opens=number == 0) for number in range(len(kept))]
        assert last.stop is (True if kept else None)
        assert last.reply is not None
        assert all(
            nearly_equal(pixels(got), picture) for got, (_, picture) in zip(last.reply, pairs, strict=True)
        )


def test_a_refusal_is_a_first_word_and_waits_for_no_step(book: RequestBook[Answer], gate: Gate) -> None:
    frontend = Frontend(book)
    frontend.call(slow=[long_job()])
    gate.shut()
    gate.wait()
    frontend.call(bad="invalid_request")
    frontend.call(much=[make_job(seed=seed) for seed in range(12)])
    for name, code in {"bad": "invalid_request", "much": "overloaded"}.items():
        [chunk] = frontend.chunks[name]
        assert chunk.stop is None
        assert chunk.reply is not None
        assert set(codes(chunk.reply)) == {code}


def test_steps_that_a_scheduler_cannot_take_are_a_first_word_too(
    book: RequestBook[Answer], gate: Gate
) -> None:
    frontend = Frontend(book)
    frontend.call(slow=[long_job()])
    gate.shut()
    gate.wait()
    frontend.call(bad=[make_job(), make_job(num_inference_steps=60, scheduler="LCM")])
    [chunk] = frontend.chunks["bad"]
    assert chunk.stop is None
    assert chunk.reply is not None
    nothing, refused = chunk.reply
    assert nothing is None
    assert codes([refused]) == ["invalid_request"]
    assert book.engine.live_count == 1


def test_drawing_goes_on_between_the_calls(book: RequestBook[Answer]) -> None:
    frontend = Frontend(book)
    frontend.call(drawn=[make_job()], bad="invalid_request")
    until(lambda: book.engine.metrics.counts["finished"] == 1)
    frontend.call()
    assert frontend.chunks["drawn"][-1].reply is not None


def test_nothing_is_drawn_for_long_when_nobody_asks_any_more(book: RequestBook[Answer]) -> None:
    frontend, counts = Frontend(book), book.engine.metrics.counts
    hook = layers(book.engine.model.unet).register_forward_hook(lambda *_: time.sleep(0.01))
    frontend.call(gone=[long_job(seed) for seed in range(4)])
    steps = -1
    while steps < counts["steps"]:
        steps = counts["steps"]
        time.sleep(0.5)
    hook.remove()
    assert 0 < steps < 900
    frontend.names = []
    assert frontend.draws_a_picture()
    assert counts["cancelled"] == 4


@pytest.mark.parametrize("refused", ["400", "429"])
def test_refusals_in_every_call_do_not_keep_the_others_from_being_drawn(
    book: RequestBook[Answer], refused: str
) -> None:
    frontend = Frontend(book)
    frontend.call(drawn=[make_job(num_inference_steps=10, scheduler="DDIM")])
    too_many = [make_job(seed=seed) for seed in range(12)]
    bad: list[str] = []

    def refuse_one_more() -> bool:
        bad.append(f"bad{len(bad)}")
        frontend.call(**{bad[-1]: "invalid_request" if refused == "400" else too_many})
        return "drawn" not in frontend.names

    until(refuse_one_more)
    for name in bad:
        assert [chunk.stop for chunk in frontend.chunks[name]] == [None]


def test_a_client_that_hangs_up_is_cancelled_before_the_next_step(
    book: RequestBook[Answer], gate: Gate
) -> None:
    frontend = Frontend(book)
    frontend.call(gone=[long_job(seed) for seed in range(4)])
    gate.shut()
    gate.wait()
    frontend.hang_up("gone")
    frontend.call(new=[long_job()])
    running = len(gate.rows)
    gate.let(3)
    assert gate.rows[running - 1 :] == [8, 2, 2, 2]
    assert book.engine.metrics.counts["cancelled"] == 4


def test_a_picture_finished_in_the_step_of_its_hang_up_is_nobodys(
    book: RequestBook[Answer], gate: Gate
) -> None:
    frontend, lone = Frontend(book), make_job(num_inference_steps=1, scheduler="DDIM")
    gate.shut()
    frontend.call(gone=[lone])
    gate.wait()
    frontend.hang_up("gone")
    frontend.call()
    gate.open()
    until(lambda: book.engine.metrics.counts["finished"] == 1)
    assert frontend.draws_a_picture()


def test_the_next_in_line_takes_the_place_before_the_next_unet_call(
    book: RequestBook[Answer], gate: Gate
) -> None:
    frontend, engine = Frontend(book), book.engine
    frontend.call(**{name: [long_job(seed)] for seed, name in enumerate("abcd")}, next=[long_job()])
    gate.shut()
    gate.wait()
    assert (engine.live_count, engine.metrics.counts["admitted"]) == (4, 4)
    frontend.hang_up("b")
    frontend.call()
    gate.let(1)
    assert (engine.live_count, engine.metrics.counts["admitted"]) == (4, 5)


def test_a_failure_after_the_first_word_ends_the_request_in_its_body(book: RequestBook[Answer]) -> None:
    frontend = Frontend(book)
    frontend.call(drawing=[long_job()])
    frontend.names.append("new")
    chunks = frontend.batches.abandon(frontend.names, [Failure(500, "internal", "")])
    assert [chunk.stop for chunk in chunks] == [True, None]
    until(lambda: not book.engine.busy)
    frontend.names = []
    assert frontend.draws_a_picture()


def test_a_call_is_longer_while_every_place_is_taken(book: RequestBook[Answer], gate: Gate) -> None:
    """Nobody can join before an answer, which ends the call; a client that hangs up is noticed in 0.25 s."""
    gate.shut()
    front = Frontend(book)
    front.call(three=[long_job(seed) for seed in range(3)])
    gate.wait()
    assert book.call_seconds < LONGEST_CALL_SECONDS, "one place is free"
    front.call(last=[long_job(3)])
    gate.let(1)
    assert book.call_seconds == LONGEST_CALL_SECONDS
    front.hang_up("last")
    front.call()
    gate.let(1)
    assert book.call_seconds < LONGEST_CALL_SECONDS
