"""The requests of the load: prompts, step counts and the share of invalid ones, from a fixed seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from benchmarks.load import Body

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SHAPES = ("circle", "square", "triangle", "star")
MIXED_STEPS = (10, 20, 30, 40, 50)


def equal(num_inference_steps: int, seed: int = 0, output_format: str | None = None) -> Iterator[Body]:
    """Endless requests of one step count, each with its own prompt and seed."""
    return _requests((num_inference_steps,), seed, output_format)


def mixed(seed: int = 0) -> Iterator[Body]:
    """Endless requests of 10 to 50 steps."""
    return _requests(MIXED_STEPS, seed, None)


def with_invalid(bodies: Iterator[Body], every: int) -> Iterator[Body]:
    """The same requests; every ``every``-th is invalid, and only this one is to be answered 400."""
    for index, body in enumerate(bodies):
        if index % every == every - 1:
            yield {"instances": [{**body["instances"][0], "num_inference_steps": "many"}]}
        else:
            yield body


def _requests(steps: tuple[int, ...], seed: int, output_format: str | None) -> Iterator[Body]:
    chance = random.Random(seed)
    for number in itertools.count():
        fore, back = chance.sample(COLOURS, 2)
        ask = {
            "prompt": f"a {fore} {chance.choice(SHAPES)} on a {back} background",
            "num_inference_steps": chance.choice(steps),
            "guidance_scale": 1.5,
            "seed": number,
        }
        if output_format is not None:
            ask["output_format"] = output_format
        yield {"instances": [ask]}
