"""One instance may be several pictures: what is answered, and what a failure among them says."""

from __future__ import annotations

import base64
import dataclasses
import io
import json

import pytest
from PIL import Image

from handler.contract.job import Failure, Job, Outcome, Picture
from handler.contract.limits import Defaults
from handler.contract.request import Describe, Pictures, Request
from handler.contract.response import Reply, reply

DESCRIPTION = {"versions": {"marquee": "1"}, "weights_digest": "0" * 64}
JOB = Job(prompt="a cat", seed=5, **{**dataclasses.asdict(Defaults()), "output_format": "png"})
COLOURS = ("red", "green", "blue", "white")


def jobs(count: int, response: str = "image") -> Pictures:
    return Pictures(
        tuple(dataclasses.replace(JOB, seed=5 + number, response=response) for number in range(count))
    )


def drawn(*colours: str) -> list[Outcome]:
    return [Picture(Image.new("RGB", (8, 8), colour), {"queue": 0.0}) for colour in colours]


def answer(request: Request, outcomes: list[Outcome]) -> Reply:
    return reply(request, outcomes, DESCRIPTION, 1_000_000)


def colour(text: str) -> object:
    return Image.open(io.BytesIO(base64.b64decode(text))).getpixel((0, 0))


def named(*colours: str) -> list[object]:
    return [Image.new("RGB", (1, 1), name).getpixel((0, 0)) for name in colours]


def test_the_jobs_of_a_request_are_those_of_its_instances_in_order() -> None:
    request = Request((jobs(2), Describe(), jobs(1)))
    assert [job.seed for job in request.jobs] == [5, 6, 5]


def test_several_pictures_of_one_instance_are_one_prediction_a_list() -> None:
    request = Request((jobs(1), jobs(3)))
    one, several = json.loads(answer(request, drawn(*COLOURS)).text)["predictions"]
    assert colour(one) == named("red")[0]
    assert [colour(text) for text in several] == named("green", "blue", "white")


def test_a_full_answer_has_a_receipt_for_each_picture() -> None:
    request = Request((Describe(), jobs(2, "full"), jobs(1, "full")))
    described, two, one = json.loads(answer(request, drawn("red", "green", "blue")).text)["predictions"]
    assert described == DESCRIPTION
    assert two.keys() == {"images", "receipts"}
    assert [colour(text) for text in two["images"]] == named("red", "green")
    assert [receipt["seed"] for receipt in two["receipts"]] == [5, 6]
    assert one.keys() == {"image", "receipt"}
    assert colour(one["image"]) == named("blue")[0]


@pytest.mark.parametrize(("failed", "instance"), [(0, 0), (1, 1), (2, 1), (3, 3)])
def test_a_failed_picture_names_its_instance(failed: int, instance: int) -> None:
    request = Request((jobs(1), jobs(2), Describe(), jobs(1)))
    outcomes = drawn(*COLOURS)
    outcomes[failed] = Failure(500, "internal", "broken")
    said = answer(request, outcomes)
    assert said.status == 500
    assert [problem["instance"] for problem in json.loads(said.text)["error"]["problems"]] == [instance]
