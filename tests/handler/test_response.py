"""One instance may be several pictures: what is answered, and what a failure among them says."""

from __future__ import annotations

import base64
import dataclasses
import io
import json

import pytest
from PIL import Image

from handler.contract.job import Failure, Job, Outcome, Picture, Safety
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


def checked(*actions: str) -> list[Outcome]:
    """Pictures after the safety checker: "sent" are not flagged, the others are and have no pixels here."""
    return [
        Picture(
            None if action == "withheld" else Image.new("RGB", (8, 8), "red"),
            {"queue": 0.0},
            safety=Safety(action != "sent", action),
        )
        for action in actions
    ]


def test_a_full_answer_has_the_verdict_beside_the_image_and_in_the_receipt() -> None:
    request = Request((jobs(1, "full"), jobs(1, "full"), jobs(1, "full")))
    sent, blurred, withheld = json.loads(answer(request, checked("sent", "blurred", "withheld")).text)[
        "predictions"
    ]
    assert sent["safety"] == sent["receipt"]["safety"] == {"flagged": False, "action": "sent"}
    assert "warnings" not in sent
    assert blurred["safety"] == blurred["receipt"]["safety"] == {"flagged": True, "action": "blurred"}
    assert blurred["receipt"]["pixels_sha256"] == sent["receipt"]["pixels_sha256"], "that of the sent pixels"
    assert withheld["image"] is None
    assert withheld["safety"] == {"flagged": True, "action": "withheld"}
    assert withheld["receipt"]["pixels_sha256"] is withheld["receipt"]["file_sha256"] is None
    assert withheld["receipt"]["seed"] == 5
    assert withheld["warnings"][0]["code"] == "picture_flagged"


def test_a_short_answer_warns_of_flagged_pictures_and_has_null_for_a_withheld_one() -> None:
    request = Request((jobs(1), jobs(3), Describe(), jobs(1)))
    said = json.loads(answer(request, checked("sent", "sent", "blurred", "withheld", "withheld")).text)
    one, several, _, last = said["predictions"]
    assert colour(one) == colour(several[0]) == colour(several[1]) == named("red")[0]
    assert several[2] is last is None
    assert [(told["instance"], told["picture"], told["message"]) for told in said["warnings"]] == [
        (1, 1, "the safety checker flagged picture 2 of 3: it is sent blurred"),
        (1, 2, "the safety checker flagged picture 3 of 3: it is not sent"),
        (3, 0, "the safety checker flagged the picture: it is not sent"),
    ]
    assert {told["code"] for told in said["warnings"]} == {"picture_flagged"}


def test_several_full_pictures_have_a_list_of_verdicts_and_without_a_checker_none() -> None:
    several = json.loads(answer(Request((jobs(2, "full"),)), checked("withheld", "sent")).text)
    [prediction] = several["predictions"]
    assert [one["action"] for one in prediction["safety"]] == ["withheld", "sent"]
    assert prediction["images"][0] is None
    assert colour(prediction["images"][1]) == named("red")[0]
    plain = json.loads(answer(Request((jobs(1, "full"),)), drawn("red")).text)["predictions"][0]
    assert "safety" not in plain
    assert "safety" not in plain["receipt"]
