"""Memory: planned from measured bytes; a call that runs out of it fails no picture that fits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from driving import draw, nearly_equal, pixels, reason, submit
from tiny import layers, make_job
from torch.overrides import TorchFunctionMode

from handler.contract.job import Job
from handler.engine.engine import Engine
from handler.engine.memory.footprint import measure_footprint, peak_bytes
from handler.engine.memory.plan import (
    NO_LIMIT,
    Claim,
    Footprint,
    MemoryPlan,
    available_bytes,
    cgroup_free_bytes,
)
from handler.engine.options import EngineOptions
from handler.model.model import Model

Oracle = list[tuple[Job, torch.Tensor]]


@contextmanager
def short_of_memory(module: torch.nn.Module, fits: Callable[[int], bool]) -> Iterator[list[int]]:
    """The module runs out of memory for row counts that do not fit; yields the counts asked for."""
    asked: list[int] = []

    def check(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        asked.append(len(inputs[0]))
        if not fits(len(inputs[0])):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    hook = module.register_forward_pre_hook(check)
    try:
        yield asked
    finally:
        hook.remove()


def test_running_out_shrinks_the_calls_and_loses_nobody(
    model: Model, plan: MemoryPlan, oracle: Oracle
) -> None:
    chosen = [
        pair for pair in oracle if pair[0].guidance_scale > 1 and pair[0].width == pair[0].height == 64
    ][:6]
    engine = Engine(model, EngineOptions(max_live=6), plan)
    with short_of_memory(layers(model.unet), lambda rows: rows <= 4) as asked:
        outcomes = draw(engine, [job for job, _ in chosen])
    assert all(nearly_equal(pixels(got), wanted) for (_, wanted), got in zip(chosen, outcomes, strict=False))
    assert asked[:2] == [12, 6]
    assert max(asked[2:]) <= 4, "what did not fit once is not tried again"


def test_a_moment_without_memory_is_waited_out(model: Model, plan: MemoryPlan, oracle: Oracle) -> None:
    job, wanted = oracle[0]
    counts = iter(range(100))
    with short_of_memory(layers(model.unet), lambda _: next(counts) not in (1, 2)):
        [outcome] = draw(Engine(model, EngineOptions(), plan), [job])
    assert torch.equal(pixels(outcome), wanted)


def test_an_image_that_never_fits_fails_alone(model: Model, plan: MemoryPlan, oracle: Oracle) -> None:
    small, wanted = next((job, picture) for job, picture in oracle if (job.width, job.height) == (64, 64))
    big = make_job(width=128, height=128, guidance_scale=1.0)
    engine = Engine(model, EngineOptions(), plan)

    def check(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[-1] == 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    hook = layers(model.unet).register_forward_pre_hook(check)
    outcomes = draw(engine, [big, small])
    hook.remove()
    assert reason(outcomes[0]) == "out_of_memory"
    assert nearly_equal(pixels(outcomes[1]), wanted)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_an_image_that_breaks_a_call_fails_alone(model: Model, plan: MemoryPlan, part: str) -> None:
    jobs = [make_job(f"{part} {number}", seed=number, guidance_scale=1.0) for number in range(4)]
    wanted = draw(Engine(model, EngineOptions(), plan), jobs)
    calls = itertools.count(1)

    def check(*_: object) -> None:
        if next(calls) in (1, 3):  # all together, then the second alone
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (injected)")

    module = layers(model.vae).decoder if part == "vae" else getattr(model, part)
    hook = module.register_forward_pre_hook(check)
    outcomes = draw(Engine(model, EngineOptions(), plan), jobs)
    hook.remove()
    assert reason(outcomes[1]) == "internal"
    for index in (0, 2, 3):
        assert nearly_equal(pixels(outcomes[index]), pixels(wanted[index]))


def test_decoding_without_memory_is_sliced(model: Model, plan: MemoryPlan) -> None:
    jobs = [make_job(seed=seed, num_inference_steps=1, scheduler="DDIM") for seed in range(4)]
    with short_of_memory(layers(model.vae).decoder, lambda rows: rows == 1) as asked:
        outcomes = draw(Engine(model, EngineOptions(), plan), jobs)
    assert len({pixels(outcome).sum().item() for outcome in outcomes}) == 4
    assert asked == [4, 2, 1, 1, 1, 1]


def test_a_decoding_without_memory_is_tried_at_the_next_steps(
    model: Model, plan: MemoryPlan, oracle: Oracle
) -> None:
    job, wanted = oracle[0]
    tries = itertools.count(1)
    with short_of_memory(layers(model.vae).decoder, lambda _: next(tries) > 3):
        [outcome] = draw(Engine(model, EngineOptions(), plan), [job])
    assert torch.equal(pixels(outcome), wanted)
    with short_of_memory(layers(model.vae).decoder, lambda _: False) as asked:
        [outcome] = draw(Engine(model, EngineOptions(), plan), [job])
    assert (reason(outcome), len(asked)) == ("out_of_memory", 4)


class NoMemoryFor(TorchFunctionMode):
    """Calls of one torch function run out of memory while ``fails`` says so; the n-th call is number n."""

    def __init__(self, function: Callable[..., torch.Tensor], fails: Callable[[int], bool]) -> None:
        super().__init__()
        self.calls = 0
        self._function, self._fails = function, fails

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if func is self._function:
            self.calls += 1
            if self._fails(self.calls):
                raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        return func(*args, **(kwargs or {}))


def test_a_sampler_without_memory_is_waited_for_and_draws_the_same_picture(
    model: Model, plan: MemoryPlan
) -> None:
    """Ancestral noise comes from the job's generator: what a failed step drew of it must be given back."""
    jobs = [make_job(seed=seed, scheduler="Euler ancestral", num_inference_steps=6) for seed in range(3)]
    options = EngineOptions(vectorised=True)
    wanted = draw(Engine(model, options, plan), jobs)
    # The sampler's product is the only one of these in a step, and comes after its noise.
    with NoMemoryFor(torch.bmm, lambda call: call in (3, 4)) as products:
        drawn = draw(Engine(model, options, plan), jobs)
    assert products.calls == 6 + 2
    for got, want in zip(drawn, wanted, strict=True):
        assert torch.equal(pixels(got), pixels(want))


def test_a_place_is_not_lost_where_joining_finds_no_memory(model: Model, plan: MemoryPlan) -> None:
    engine = Engine(model, EngineOptions(max_live=2, vectorised=True), plan)
    with NoMemoryFor(torch.nn.functional.pad, lambda _: True) as paddings:  # a longer history
        outcomes = draw(engine, [make_job(seed=seed) for seed in range(5)])
    assert paddings.calls >= 5
    assert [reason(outcome) for outcome in outcomes] == ["out_of_memory"] * 5
    assert (
        len({pixels(outcome).sum().item() for outcome in draw(engine, [make_job(), make_job(seed=9)])}) == 2
    )


def test_strict_rows_are_no_more_than_the_plan_has_places_for(model: Model) -> None:
    footprint = Footprint(unet_row_bytes=10, decode_bytes=20, state_bytes=5)
    plan = MemoryPlan(budget_bytes=3 * 25 * 64 * 64 + 20 * 64 * 64, footprint=footprint)
    with short_of_memory(layers(model.unet), lambda _: True) as asked:
        draw(Engine(model, EngineOptions(max_live=8, strict=True), plan), [make_job(width=64, height=64)])
        draw(Engine(model, EngineOptions(max_live=8, strict=True), plan), [make_job(width=32, height=32)])
    assert set(asked) == {6, 16}


def test_room_for_the_largest_decoding_is_kept() -> None:
    plan = MemoryPlan(300, Footprint(unet_row_bytes=0, decode_bytes=2, state_bytes=1))
    assert plan.fits([], Claim(1000)), "one is always tried"
    assert plan.fits([Claim(90)], Claim(30))
    assert not plan.fits([Claim(90)], Claim(40))
    assert not plan.fits([Claim(30)], Claim(91))


def test_room_is_kept_for_what_a_family_holds_and_for_an_encoding() -> None:
    held = {"text_to_image": 0.0, "image_to_image": 0.0, "inpaint": 1.0}
    plan = MemoryPlan(400, Footprint(1, 0, 1, encode_bytes=8, family_bytes=held))
    live = [Claim(40)]  # 3 bytes a pixel: 120
    assert plan.fits(live, Claim(93))
    assert plan.fits(live, Claim(40, "image_to_image")), (
        "240, and 160 by which encoding exceeds both UNet rows"
    )
    assert not plan.fits(live, Claim(41, "image_to_image"))
    assert not plan.fits(live, Claim(40, "inpaint"))


def test_a_text_that_does_not_fit_fails_alone(model: Model, plan: MemoryPlan) -> None:
    with short_of_memory(model.text_encoder, lambda _: False):
        [outcome] = draw(Engine(model, EngineOptions(), plan), [make_job("never seen")])
    assert reason(outcome) == "out_of_memory"


def test_the_plan_bounds_admission_over_all_sizes(model: Model) -> None:
    footprint = Footprint(unet_row_bytes=10, decode_bytes=20, state_bytes=5)  # 25 bytes a pixel live
    plan = MemoryPlan(budget_bytes=3 * 25 * 64 * 64 + 20 * 64 * 64, footprint=footprint)
    assert plan.places(64 * 64) == 3
    assert plan.places(32 * 32) == 14
    assert plan.places(640 * 640) == 1, "one is always tried"
    assert plan.decode_slice(64 * 64, live=3) == 1
    assert plan.decode_slice(64 * 64, live=0) == 4
    largest_decoding = 20 * 128 * 64
    plan = MemoryPlan(budget_bytes=3 * 25 * 64 * 64 + largest_decoding, footprint=footprint)
    engine = Engine(model, EngineOptions(max_live=8), plan)
    submit(engine, make_job(width=128, guidance_scale=1.0))
    submit(engine, make_job())
    submit(engine, make_job())
    engine.step()
    assert engine.live_count == 2


def test_page_cache_counts_as_free_in_a_container(tmp_path: Path) -> None:
    assert cgroup_free_bytes(tmp_path) == NO_LIMIT
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 300\nfile 600\ninactive_file 400\nactive_file 150\n")
    assert cgroup_free_bytes(tmp_path) == 1000 - (900 - 550)
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup_free_bytes(tmp_path) == NO_LIMIT


def test_page_cache_counts_as_free_in_the_machine(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  24 kB\nMemFree:  3 kB\nMemAvailable:   20 kB\nHugePages_Total: 0\n")
    assert available_bytes(meminfo) == 20 * 1024
    assert available_bytes(tmp_path / "none") > 0


def test_peak_counts_what_lives_together(model: Model) -> None:
    block = torch.zeros(1000)  # 4000 bytes, there before

    def call() -> torch.Tensor:
        first = block + 1
        second = first * 2
        del first
        third = second * 2
        return third.view(10, 100)

    assert peak_bytes(call, torch.device("cpu")) == 8000


def test_a_tensor_from_outside_hides_no_later_one_at_its_address() -> None:
    def call() -> None:
        for _ in range(20):
            outside = [torch.frombuffer(bytearray(40), dtype=torch.float32) for _ in range(50)]
            for one in outside:
                one.add(1)
            del outside, one
            pair = torch.zeros(1000), torch.zeros(1000)
            del pair

    assert [peak_bytes(call, torch.device("cpu")) for _ in range(6)] == [8000] * 6


def test_footprint_is_per_pixel(model: Model) -> None:
    small = measure_footprint(model, 64, 64, history_columns=10)
    large = measure_footprint(model, 256, 256, history_columns=10)
    assert 0.5 < large.unet_row_bytes / small.unet_row_bytes < 1.5
    assert 0.9 < large.decode_bytes / small.decode_bytes < 1.1
    assert small.state_bytes == 10 * 4 * 4 / 64  # columns of 4 fp32 channels, one latent for 64 pixels
