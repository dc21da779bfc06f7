"""The tiny pipeline, 64 oracle pictures and engines for the tests of ``handler.engine``."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from diffusers import StableDiffusionPipeline
from frontend import Answer, Gate
from tiny import as_model, draw_plainly, make_job, make_pipeline

from handler.contract.job import Job
from handler.contract.schedulers import SCHEDULERS
from handler.doors.torchserve.request_book import RequestBook
from handler.engine.accelerate.lanes import Lanes
from handler.engine.engine import Engine
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import MemoryPlan
from handler.engine.options import EngineOptions
from handler.engine.runner import Runner
from handler.engine.watchdog import Watchdog
from handler.model.model import Model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small pictures are quicker so; and the oracle must draw with the engine's number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def lanes(two_threads: None) -> Lanes:
    """Two, in a process that had two threads."""
    return Lanes(2)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    made = make_pipeline(tmp_path_factory.mktemp("tokenizer"))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def model(pipeline: StableDiffusionPipeline) -> Model:
    return as_model(pipeline)


@pytest.fixture(scope="session")
def plan(model: Model) -> MemoryPlan:
    """A gigabyte: room for everything the tests draw."""
    return MemoryPlan(10**9, measure_footprint(model, 64, 64, history_columns=9))


@pytest.fixture
def book(model: Model, plan: MemoryPlan) -> Iterator[RequestBook[Answer]]:
    """Four places and a queue of six."""
    watchdog = Watchdog(seconds=600)
    runner = Runner(Engine(model, EngineOptions(max_live=4, max_queue=6), plan), watchdog)
    made: RequestBook[Answer] = RequestBook(runner)
    yield made
    made.close()
    watchdog.close()


@pytest.fixture
def gate(book: RequestBook[Answer]) -> Iterator[Gate]:
    made = Gate(book)
    yield made
    made.open()


@pytest.fixture(scope="session")
def oracle(pipeline: StableDiffusionPipeline) -> list[tuple[Job, torch.Tensor]]:
    """64 different jobs of at most 8 steps, each with its picture from diffusers' own pipeline."""
    chance = random.Random(4)
    jobs = [
        make_job(
            chance.choice(["a cat", "a dog", "x"]),
            negative_prompt=chance.choice(["", "", "blurred"]),
            num_inference_steps=chance.randint(1 if name != "UniPC" else 2, 8),
            guidance_scale=chance.choice([1.0, 3.0, 7.5]),
            seed=number,
            width=chance.choice([64, 64, 32]),
            height=chance.choice([64, 64, 96]),
            scheduler=name,
        )
        for number, name in zip(range(64), list(SCHEDULERS) * 10, strict=False)
    ]
    return [(job, draw_plainly(pipeline, job)) for job in jobs]
