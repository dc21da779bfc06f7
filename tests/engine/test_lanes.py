"""Lanes: one core each, parts in order, errors as they are; pictures decoded in them are the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from driving import nearly_equal, pixels
from PIL import Image
from tiny import layers

from handler.contract.job import Failure, Outcome, Picture
from handler.engine.accelerate.compiled import CompiledUNet
from handler.engine.accelerate.lane_trial import lanes_from
from handler.engine.accelerate.lanes import Lanes
from handler.engine.decoder import NOT_FINITE, PictureDecoder, Undecoded
from handler.engine.ticket import Ticket
from handler.model.model import Model, Size

WAIT_SECONDS = 60


class Spoiled(Exception):
    """An error like no other."""


def test_parts_run_beside_each_other_and_come_back_in_order(lanes: Lanes) -> None:
    second_is_done = threading.Event()

    def double(part: int) -> int:
        if part == 1:
            assert second_is_done.wait(WAIT_SECONDS)
        else:
            second_is_done.set()
        return 2 * part

    assert lanes.map(double, [1, 2]) == [2, 4]


def test_more_parts_than_lanes_come_back_in_order(lanes: Lanes) -> None:
    assert lanes.map(lambda part: -part, range(7)) == [-part for part in range(7)]


def test_a_lane_has_one_core_and_a_part_alone_has_all(lanes: Lanes) -> None:
    both = threading.Barrier(2)

    def threads_together(_: int) -> int:
        both.wait(WAIT_SECONDS)
        return torch.get_num_threads()

    for _ in range(2):  # before and after a part alone
        assert lanes.map(threads_together, [0, 1]) == [1, 1]
        assert torch.get_num_threads() == 1
        assert lanes.map(lambda _: torch.get_num_threads(), [0]) == [2]
        assert torch.get_num_threads() == 1


def test_a_part_alone_that_fails_gives_the_cores_back(lanes: Lanes) -> None:
    with pytest.raises(Spoiled):
        lanes.map(_spoil, [Spoiled()])
    assert torch.get_num_threads() == 1


def test_lanes_keep_no_gradients(lanes: Lanes) -> None:
    assert lanes.map(lambda _: torch.is_inference_mode_enabled(), [0, 1]) == [True, True]


def test_an_error_reaches_the_caller_as_itself_when_every_lane_has_ended(lanes: Lanes) -> None:
    failing = threading.Event()
    ended: list[str] = []
    error = Spoiled("this one")

    def work(part: str) -> None:
        if part == "bad":
            failing.set()
            raise error
        failing.wait(WAIT_SECONDS)
        time.sleep(0.2)  # long enough for a caller that does not wait to come first
        ended.append(part)

    with pytest.raises(Spoiled) as caught:
        lanes.map(work, ["bad", "good"])
    assert caught.value is error
    assert ended == ["good"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_are_even_and_never_empty(count: int, two_threads: None) -> None:
    for rows in range(1, 9):
        parts = Lanes(count).split(range(rows))
        sizes = [len(part) for part in parts]
        assert [row for part in parts for row in part] == list(range(rows))
        assert len(parts) == min(count, rows)
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1


@pytest.fixture
def decoded_rows(model: Model) -> Iterator[list[int]]:
    """The number of latents of every call of the autoencoder's decoder."""
    rows: list[int] = []
    hook = layers(model.vae).decoder.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    yield rows
    hook.remove()


def _spoil(error: Exception) -> None:
    raise error


def _latents(count: int) -> list[Undecoded]:
    noise = torch.Generator().manual_seed(3)
    return [
        Undecoded(Ticket(number), Size(8, 8), torch.randn((1, 4, 8, 8), generator=noise))
        for number in range(count)
    ]


def _decode(model: Model, latents: Sequence[Undecoded], lanes: Lanes | None = None) -> list[Outcome]:
    with torch.inference_mode():
        results = PictureDecoder(model, lambda _: 8, lanes).decode(latents)
    return [result if isinstance(result, Failure) else Picture(result, {}) for result in results]


def test_pictures_decoded_in_lanes_are_the_same(model: Model, lanes: Lanes, decoded_rows: list[int]) -> None:
    latents = _latents(5)
    together = _decode(model, latents)
    apart = _decode(model, latents, lanes)
    assert (decoded_rows[0], sorted(decoded_rows[1:])) == (5, [2, 3])
    for one, other in zip(apart, together, strict=True):
        assert nearly_equal(pixels(one), pixels(other))
    assert not nearly_equal(pixels(apart[0]), pixels(apart[1]))


def test_what_equal_lanes_leave_over_of_slow_pictures_is_decoded_on_all_cores(
    model: Model, lanes: Lanes, decoded_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handler.engine.decoder.WORTH_ALL_CORES", 0.0)
    latents, decoder = _latents(5), PictureDecoder(model, lambda _: 8, lanes)
    with torch.inference_mode():
        unknown, slow, lone = decoder.decode(latents), decoder.decode(latents), decoder.decode(latents[:1])
    assert (sorted(decoded_rows[:2]), sorted(decoded_rows[2:5]), decoded_rows[5:]) == ([2, 3], [1, 2, 2], [1])
    for one, other in zip([*slow, *lone], [*unknown, unknown[0]], strict=True):
        assert nearly_equal(pixels(_picture(one)), pixels(_picture(other)))


@pytest.mark.parametrize("bad", range(3))
def test_a_latent_that_is_not_finite_fails_alone(model: Model, lanes: Lanes, bad: int) -> None:
    latents = _latents(3)
    wanted = _decode(model, latents)
    latents[bad].latent[0, 0, 0, 0] = torch.nan
    results = _decode(model, latents, lanes)
    assert results.pop(bad) is NOT_FINITE
    del wanted[bad]
    for result, picture in zip(results, wanted, strict=True):
        assert nearly_equal(pixels(result), pixels(picture))


def test_what_was_not_compiled_runs_on_all_cores(lanes: Lanes) -> None:
    seen: list[int] = []

    def plain(*_: object, **__: object) -> tuple[str]:
        seen.append(torch.get_num_threads())
        return ("plain",)

    nothing: Any = None
    unet = CompiledUNet(layers(plain), nothing, {"rows": 4, "height": 8, "width": 8}, lanes)
    other_size = torch.zeros(1, 4, 16, 16)
    (answer,) = unet(other_size, 1, encoder_hidden_states=torch.zeros(1, 4, 8))
    assert str(answer) == "plain"
    assert (seen, torch.get_num_threads()) == ([lanes.count], 1)


@pytest.mark.parametrize("from_rows", [2, 8])
def test_lanes_are_used_from_the_rows_where_they_win(lanes: Lanes, from_rows: int) -> None:
    def code(sample: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() is threading.main_thread():
            slow = len(sample) >= from_rows
        else:
            slow = len(sample) * lanes.count < from_rows
        time.sleep(0.05 if slow else 0.0)
        return sample

    example = (torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 4, 8))
    assert lanes_from(code, {"rows": 8, "height": 8, "width": 8}, example, lanes) == from_rows


def _picture(decoded: Image.Image | Failure) -> Picture:
    assert isinstance(decoded, Image.Image), decoded
    return Picture(decoded, {})
