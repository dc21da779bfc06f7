"""Previews: right predictions, the same final bits, one decoded at a time, and never before a picture."""

from __future__ import annotations

import base64
import dataclasses
import io
import threading
from typing import Any

import numpy
import pytest
import torch
from diffusers import PNDMScheduler
from driving import draw, pixels
from PIL import Image
from tiny import SCHEDULE, layers, make_job

from handler.contract.drawing import OnEvent
from handler.contract.events import Event, Preview
from handler.contract.job import Job, Outcome, Picture, SourcePicture
from handler.contract.receipt import make_receipt
from handler.contract.schedulers import SCHEDULERS
from handler.engine.decoder import ThreadDecoding
from handler.engine.engine import Engine
from handler.engine.families.family import Start
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.previews import noise_levels, plan_previews, predict_clean, preview_file, preview_steps
from handler.engine.sampler import SchedulerSampler
from handler.engine.samplers import FreshSchedulers
from handler.engine.ticket import Ticket
from handler.model.model import Model

OPTIONS = {
    "row by row": EngineOptions(),
    "one product": EngineOptions(vectorised=True),
    "strict": EngineOptions(strict=True, vectorised=True, max_steps=10, max_live=2),
    "in a thread": EngineOptions(decode_thread=True),
}


def draw_listening(engine: Engine, job: Job) -> tuple[Outcome, list[Preview]]:
    """The job's outcome, and the previews that its listener has heard."""
    told: list[Event] = []
    assert isinstance(engine.submit(job, told.append), Ticket)
    outcomes: list[Outcome] = []
    while engine.busy:
        outcomes += [outcome for _, outcome in engine.step()]
    engine.close()
    [outcome] = outcomes
    return outcome, [event for event in told if isinstance(event, Preview)]


def shown(preview: Preview) -> Any:
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(preview.image)))).astype(int)


@pytest.mark.parametrize(
    ("steps", "previews", "wanted"),
    [(25, 0, ()), (25, 1, (13,)), (25, 2, (9, 17)), (4, 3, (1, 2, 3)), (4, 8, (1, 2, 3)), (1, 8, ())],
)
def test_previews_are_evenly_spaced_and_never_at_the_last_step(
    steps: int, previews: int, wanted: tuple[int, ...]
) -> None:
    assert preview_steps(steps, previews) == wanted


@pytest.mark.parametrize("many", range(1, 9))
def test_no_step_is_shown_twice(many: int) -> None:
    for steps in range(1, 60):
        chosen = preview_steps(steps, many)
        assert len(set(chosen)) == len(chosen) == min(many, steps - 1)
        assert all(0 < step < steps for step in chosen)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_right_prediction_gives_the_clean_latent_at_every_step(
    scheduler: str, prediction_type: str
) -> None:
    """The UNet is one that knows the clean latent; what it must say follows from diffusers' add_noise."""
    make = FreshSchedulers(PNDMScheduler.from_config({**SCHEDULE, "prediction_type": prediction_type}), "cpu")
    job = make_job(scheduler=scheduler, num_inference_steps=7)
    made = make(scheduler, 7)
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(1, 4, 8, 8, generator=generator)
    first = torch.randn(1, 4, 8, 8, generator=generator) * made.init_noise_sigma
    start = Start(made, first, generator)
    levels, sampler = noise_levels(start), SchedulerSampler(torch.float32)
    _, state = sampler.join(job, start)
    for level in levels:
        inputs = sampler.inputs([state])
        alpha = (1 + level**2) ** -0.5
        epsilon = (inputs - alpha * clean) / (level * alpha)
        said = {"epsilon": epsilon, "v_prediction": alpha * epsilon - level * alpha * clean}
        found = predict_clean(inputs, said[prediction_type], level, prediction_type, None)
        assert (found - clean).abs().max() < 2e-3
        oracle = own_prediction(state, said[prediction_type])
        if oracle is not None:
            assert (found - oracle).abs().max() < 2e-3, "what the scheduler itself calls pred_original_sample"
        assert sampler.advance([state], said[prediction_type]) == [None]
    assert (state.latent - clean).abs().max() < 0.2, "the last step's is near the finished latent"


def own_prediction(state: Any, said: torch.Tensor) -> torch.Tensor | None:
    """The clean latent that the scheduler itself predicts, by a copy of it; None where it tells none."""
    import copy

    scheduler = copy.deepcopy(state.scheduler)
    if hasattr(scheduler, "convert_model_output"):
        if scheduler.step_index is None:
            scheduler._init_step_index(state.timestep)
        converted: torch.Tensor = scheduler.convert_model_output(said, sample=state.latent)
        return converted
    step = scheduler.step(said, state.timestep, state.latent)
    return getattr(step, "pred_original_sample", None)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_previews_leave_the_picture_its_bits(
    scheduler: str, name: str, model: Model, plan: MemoryPlan
) -> None:
    job = make_job(scheduler=scheduler, num_inference_steps=5, seed=3)
    [plain] = draw(Engine(model, OPTIONS[name], plan), [job])
    asking = dataclasses.replace(job, previews=3)
    outcome, previews = draw_listening(Engine(model, OPTIONS[name], plan), asking)
    assert torch.equal(pixels(outcome), pixels(plain))
    assert previews, "at least the first one finds the decoder free"
    assert [preview.preview for preview in previews] == sorted({preview.preview for preview in previews})
    assert {preview.previews for preview in previews} == {3}
    assert isinstance(outcome, Picture)
    assert outcome.previews is not None
    assert outcome.previews.sent == len(previews)
    assert outcome.previews.sent + outcome.previews.dropped == 3
    assert outcome.previews.seconds > 0


def test_inpainting_shows_the_kept_part_as_it_is(model: Model, plan: MemoryPlan) -> None:
    chance = numpy.random.default_rng(1)
    picture = Image.fromarray(chance.integers(0, 255, (64, 64, 3), dtype=numpy.uint8))
    mask = Image.new("L", (64, 64))
    kept = make_job(
        image=SourcePicture(picture, ""), mask_image=SourcePicture(mask, ""), strength=1.0, previews=2
    )
    outcome, previews = draw_listening(Engine(model, EngineOptions(), plan), kept)
    assert isinstance(outcome, Picture)
    finished = numpy.asarray(Image.open(io.BytesIO(preview_file(outcome.image)))).astype(int)
    assert len(previews) == 2
    for preview in previews:
        assert numpy.abs(shown(preview) - finished).mean() < 1, "all is kept"


def test_nothing_is_decoded_where_nobody_listens_or_nothing_is_asked(model: Model, plan: MemoryPlan) -> None:
    calls: list[int] = []
    hook = layers(model.vae).decoder.register_forward_hook(lambda *_: calls.append(1))
    [outcome] = draw(Engine(model, EngineOptions(), plan), [make_job(previews=4)])
    silent, none = draw_listening(Engine(model, EngineOptions(), plan), make_job())
    hook.remove()
    assert len(calls) == 2, "the finished pictures"
    assert none == []
    for one in (outcome, silent):
        assert isinstance(one, Picture)
        assert one.previews is None
        assert "previews" not in make_receipt(make_job(), one, {}, b"", 0.0)["timings"]


def test_the_receipt_tells_what_previews_cost(model: Model, plan: MemoryPlan) -> None:
    job = make_job(previews=2, num_inference_steps=6)
    outcome, previews = draw_listening(Engine(model, EngineOptions(), plan), job)
    assert isinstance(outcome, Picture)
    timings = make_receipt(job, outcome, {}, b"", 0.0)["timings"]
    assert timings["previews"].keys() == {"seconds", "sent", "dropped"}
    assert timings["previews"]["sent"] == len(previews) == 2


def test_the_longer_side_has_at_most_256_pixels(model: Model, plan: MemoryPlan) -> None:
    job = make_job(previews=1, width=64, height=512, num_inference_steps=2, scheduler="DDIM")
    _, [preview] = draw_listening(Engine(model, EngineOptions(), plan), job)
    assert shown(preview).shape == (256, 32, 3)
    assert preview.format == "jpeg"


def test_one_preview_is_decoded_at_a_time_and_none_while_a_picture_waits(
    model: Model, plan: MemoryPlan
) -> None:
    """The decoder stands still at the first preview; meanwhile more steps are done and a picture finished."""
    going, free = threading.Event(), threading.Event()
    rows: list[int] = []

    def hold(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        rows.append(len(inputs[0]))
        going.set()
        assert free.wait(60)

    engine = Engine(model, EngineOptions(decode_thread=True, max_live=4), plan)
    told: dict[str, list[Event]] = {"long": [], "other": []}
    submit(engine, make_job(num_inference_steps=9, scheduler="DDIM", previews=8), told["long"].append)
    submit(engine, make_job(num_inference_steps=9, scheduler="DDIM", previews=8), told["other"].append)
    submit(engine, make_job(num_inference_steps=4, scheduler="DDIM"), lambda _: None)
    hook = layers(model.vae).decoder.register_forward_pre_hook(hold)
    engine.step()
    assert going.wait(60)
    for _ in range(5):
        engine.step()
    assert rows == [1], "one preview; the others wait, and so does the finished picture"
    assert handed_over(engine) == 2, "that preview and the finished picture, which is next"
    assert engine.live_count == 2
    assert len(engine.decodes) == 1
    free.set()
    finished: list[Outcome] = []
    while engine.busy:
        finished += [outcome for _, outcome in engine.step()]
    hook.remove()
    engine.close()
    costs = [outcome.previews for outcome in finished if isinstance(outcome, Picture)]
    assert costs[0] is None, "the short one was decoded before any other preview"
    for cost in costs[1:]:
        assert cost is not None
        assert cost.sent + cost.dropped == 8
        assert cost.dropped > 0
    shown_steps = [event.step for event in told["long"] if isinstance(event, Preview)]
    assert shown_steps == sorted(shown_steps)
    sent = sum(cost.sent for cost in costs if cost)
    assert sent == sum(isinstance(event, Preview) for heard in told.values() for event in heard)


def handed_over(engine: Engine) -> int:
    """Batches that the decoding thread has and has not given back."""
    decoding = engine.decodes._decoding
    assert isinstance(decoding, ThreadDecoding)
    return decoding._pending


def test_previews_wait_while_a_finished_picture_is_decoded(model: Model, plan: MemoryPlan) -> None:
    going, free = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        going.set()
        assert free.wait(60)

    engine = Engine(model, EngineOptions(decode_thread=True), plan)
    told: list[Event] = []
    submit(engine, make_job(num_inference_steps=1, scheduler="DDIM"), lambda _: None)
    submit(engine, make_job(num_inference_steps=9, scheduler="DDIM", previews=8), told.append)
    hook = layers(model.vae).decoder.register_forward_pre_hook(hold)
    engine.step()
    assert going.wait(60)
    for _ in range(4):
        engine.step()
    assert handed_over(engine) == 1, "the finished picture"
    free.set()
    while engine.busy:
        engine.step()
    hook.remove()
    engine.close()
    first = next((event for event in told if isinstance(event, Preview)), None)
    assert first is None or first.step >= 5, "the older ones were dropped"


def submit(engine: Engine, job: Job, on_event: OnEvent) -> None:
    assert isinstance(engine.submit(job, on_event), Ticket)


def test_a_preview_that_comes_after_its_image_was_cancelled_is_nobodys(
    model: Model, plan: MemoryPlan
) -> None:
    free = threading.Event()
    hook = layers(model.vae).decoder.register_forward_pre_hook(lambda *_: free.wait(60) and None)
    engine = Engine(model, EngineOptions(decode_thread=True), plan)
    told: list[Event] = []
    ticket = engine.submit(make_job(num_inference_steps=9, scheduler="DDIM", previews=8), told.append)
    assert isinstance(ticket, Ticket)
    engine.step()
    engine.cancel(ticket)
    free.set()
    [outcome] = draw(engine, [make_job(num_inference_steps=2, scheduler="DDIM")])
    hook.remove()
    engine.close()
    assert isinstance(outcome, Picture)
    assert not any(isinstance(event, Preview) for event in told)


def test_a_preview_that_cannot_be_decoded_costs_nothing_else(model: Model, plan: MemoryPlan) -> None:
    job = make_job(num_inference_steps=4, scheduler="DDIM", previews=1)
    [plain] = draw(Engine(model, EngineOptions(), plan), [job])
    calls: list[int] = []

    def fail_first(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("injected")

    hook = layers(model.vae).decoder.register_forward_pre_hook(fail_first)
    outcome, previews = draw_listening(Engine(model, EngineOptions(), plan), job)
    hook.remove()
    assert previews == []
    assert torch.equal(pixels(outcome), pixels(plain))
    assert isinstance(outcome, Picture)
    assert outcome.previews is not None
    assert outcome.previews.dropped == 1


def test_no_plan_where_no_preview_is_asked_for() -> None:
    make = FreshSchedulers(PNDMScheduler.from_config(SCHEDULE), "cpu")
    start = Start(make("DDIM", 5), torch.zeros(1, 4, 8, 8), torch.Generator())
    assert plan_previews(make_job(num_inference_steps=5, scheduler="DDIM"), start) is None
