"""Batches through the door, with TorchServe's own context, envelopes and loader."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from door_batches import handle, make_context
from PIL import Image

from handler.generate import Generator
from handler.job import Job, Outcome
from handler.torchserve import Door

Ask = Callable[..., list[tuple[int, Any]]]


def open_picture(text: str) -> Any:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def pixels(text: str) -> Any:
    return numpy.asarray(open_picture(text).convert("RGB")).astype(int)


def test_the_default_answer_is_one_base64_picture_per_instance(ask: Ask) -> None:
    ((status, answer),) = ask({"instances": ["a", "b"], "parameters": {"output_format": "jpeg", "seed": 3}})
    assert status == 200
    assert answer.keys() == {"predictions"}
    assert [open_picture(one).format for one in answer["predictions"]] == ["JPEG", "JPEG"]


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_output_formats(ask: Ask, output_format: str) -> None:
    ((_, answer),) = ask({"instances": ["a"], "parameters": {"output_format": output_format, "width": 72}})
    picture = open_picture(answer["predictions"][0])
    assert (picture.format, picture.size) == (output_format.upper(), (72, 64))


def test_a_receipt_draws_the_same_picture_again(ask: Ask) -> None:
    ((_, first),) = ask(
        {"instances": [{"prompt": "a cat", "scheduler": "ddim"}], "parameters": {"response": "full"}}
    )
    full = first["predictions"][0]
    receipt = full["receipt"]
    assert receipt["settings"]["scheduler"] == "DDIM"
    assert receipt["versions"].keys() >= {"marquee", "torch", "diffusers", "transformers"}
    assert len(receipt["weights_digest"]) == 64
    assert receipt["timings"].keys() == {"queue", "denoise", "decode"}
    again = {**receipt["settings"], "seed": receipt["seed"], "response": "image"}
    ((_, second),) = ask({"instances": [again]})
    assert second["predictions"] == [full["image"]]


def test_a_seed_too_large_for_a_double_comes_back_as_a_string(ask: Ask) -> None:
    ((_, answer),) = ask({"instances": [{"prompt": "a", "seed": 2**63, "response": "full"}]})
    assert answer["predictions"][0]["receipt"]["seed"] == str(2**63)


def test_unseeded_pictures_differ(ask: Ask) -> None:
    ((_, answer),) = ask({"instances": ["a", "a"]})
    assert answer["predictions"][0] != answer["predictions"][1]


def test_three_mistakes_cost_no_neighbour_its_picture(ask: Ask) -> None:
    good = [{"instances": [{"prompt": f"cat {number}", "seed": number}]} for number in range(7)]
    alone = [ask(body)[0][1]["predictions"][0] for body in good]
    bad = {"instances": [{"prompt": "a", "widht": 8, "seed": -1}], "parameters": {"scheduler": "Eulr"}}
    answers = ask(*good[:3], bad, *good[3:])
    assert [status for status, _ in answers] == [200, 200, 200, 400, 200, 200, 200, 200]
    refused = answers.pop(3)[1]["error"]
    assert [problem["field"] for problem in refused["problems"]] == ["scheduler", "widht", "seed"]
    pictures = [pixels(answer["predictions"][0]) for _, answer in answers]
    for index, text in enumerate(alone):
        distances = [abs(picture - pixels(text)).max() for picture in pictures]
        assert distances[index] <= 1  # the size of a batch changes the last bits
        assert min(distances[:index] + distances[index + 1 :]) > 10


def test_lost_and_broken_bodies_get_their_own_400(door: Door, archive_root: Path) -> None:
    rows = [
        {},
        {"body": bytearray(b"{bad")},
        {"body": {"instances": ["a"]}},
        {"body": [1]},
        {"body": b"\xff"},
    ]
    assert [status for status, _ in handle(door, archive_root, rows)] == [400, 400, 200, 400, 400]


def test_describe_tells_what_this_archive_is(ask: Ask) -> None:
    ((_, answer),) = ask({"instances": [{"describe": True}]})
    (description,) = answer["predictions"]
    assert description["defaults"]["num_inference_steps"] == 3
    assert description["limits"]["max_instances"] == 4
    assert (description["device"], description["dtype"]) == ("cpu", "float32")


def test_torchserves_describe_request_gets_the_same_object(door: Door, archive_root: Path, ask: Ask) -> None:
    context = make_context(archive_root, 1, {"describe": "True"})
    (text,) = door.handle([{}], context)
    assert json.loads(text) == ask({"instances": [{"describe": True}]})[0][1]["predictions"][0]


@pytest.fixture
def second_door(door: Door) -> Door:
    """A door of its own on the loaded model, for tests that change it."""
    copy = Door()
    vars(copy).update(vars(door))
    return copy


def with_limits(door: Door, **limits: Any) -> None:
    import dataclasses

    settings = door._settings
    changed = dataclasses.replace(settings.limits, **limits)
    door._settings = dataclasses.replace(settings, limits=changed)


@pytest.mark.parametrize(("room", "cure"), [(30_000, "at most 2 of these"), (5_000, "a smaller picture")])
def test_a_reply_too_large_for_the_server_says_what_fits(
    second_door: Door, archive_root: Path, room: int, cure: str
) -> None:
    body = {"instances": ["a", "b", "c"], "parameters": {"output_format": "png", "seed": 1}}
    with_limits(second_door, max_response_bytes=room)
    answers = handle(second_door, archive_root, [{"body": body}, {"body": {"instances": [{"prompt": ""}]}}])
    (status, answer), (neighbour, _) = answers
    assert (status, neighbour) == (413, 400)
    assert answer["error"]["code"] == "response_too_large"
    assert cure in answer["error"]["message"]


class Broken(Generator):
    """A generator that fails as no generator may."""

    def generate(self, jobs: Any) -> list[Outcome]:
        raise OSError("the disk with the prompt 'secret' is gone")


class HalfBroken(Generator):
    """A generator that cannot draw prompts that start with "bad"."""

    def _draw(self, jobs: Any, started: float) -> list[Outcome]:
        if any(job.prompt.startswith("bad") for job in jobs):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return super()._draw(jobs, started)


def test_whatever_breaks_every_row_has_an_answer(second_door: Door, archive_root: Path) -> None:
    second_door._generator = Broken(second_door._generator._model, 1)
    answers = handle(second_door, archive_root, [{"body": {"instances": ["a"]}}] * 3)
    assert [status for status, _ in answers] == [500, 500, 500]
    assert "secret" not in json.dumps(answers)


def test_a_failed_picture_fails_its_own_request(second_door: Door, archive_root: Path) -> None:
    second_door._generator = HalfBroken(second_door._generator._model, 1)
    rows = [{"body": {"instances": ["a", "bad b"]}}, {"body": {"instances": ["c"]}}]
    (status, answer), (neighbour, _) = handle(second_door, archive_root, rows)
    assert (status, neighbour) == (500, 200)
    assert [problem["instance"] for problem in answer["error"]["problems"]] == [1]


def test_prompts_are_never_logged(ask: Ask, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    secret = "xylophone"
    with caplog.at_level(logging.DEBUG):
        ask({"instances": [f"{secret} " * 20]}, {"instances": [{"prompt": secret, "seed": secret}]})
    written = capfd.readouterr()
    assert secret not in caplog.text + written.out + written.err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda root: (root / "model-config.yaml").write_text("marquee: {treads: 1}"), "treads"),
        (lambda root: (root / "model" / "unet" / "config.json").unlink(), "unet/config.json"),
        (lambda root: (root / "model" / "tokenizer" / "tokenizer.json").unlink(), "tokenizer"),
    ],
)
def test_a_failed_load_raises_and_logs_one_clear_line(
    archive_root: Path, tmp_path: Path, change: Any, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    root = Path(shutil.copytree(archive_root, tmp_path / "root"))
    change(root)
    with pytest.raises(RuntimeError, match=named):
        Door().initialize(make_context(root, 0))
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert named in record.getMessage()


class TestUnderAStockEnvelope:
    """Where the envelopes are not ours, rows are instances and errors stay in-band."""

    @pytest.fixture
    def send(self, door: Door, archive_root: Path) -> Callable[..., list[Any]]:
        from ts.torch_handler.request_envelope.base import BaseEnvelope
        from ts.torch_handler.request_envelope.json import JSONEnvelope

        class StockEnvelope(JSONEnvelope):
            handle = BaseEnvelope.handle

        def send(*bodies: Any) -> list[Any]:
            context = make_context(archive_root, len(bodies))
            answers = StockEnvelope(door.handle).handle([{"body": body} for body in bodies], context)
            assert [context.get_response_status(index)[0] for index in range(len(bodies))] == [200] * len(
                bodies
            )
            return [json.loads(text)["predictions"] for text in answers]

        return send

    def test_each_instance_has_its_answer(self, send: Callable[..., list[Any]], ask: Ask) -> None:
        good, bad = {"prompt": "a", "seed": 1}, {"prompt": "a", "seed": -1}
        first, second = send({"instances": [good, bad]}, {"instances": [good]})
        expected = ask({"instances": [good]})[0][1]["predictions"][0]
        assert abs(pixels(first[0]) - pixels(expected)).max() <= 1
        assert abs(pixels(second[0]) - pixels(expected)).max() <= 1
        assert first[1]["error"]["problems"][0]["field"] == "seed"

    @pytest.mark.parametrize("instance", ["a", {"prompt": "a"}, {"data": {"prompt": "a"}}])
    def test_a_lone_instance_is_recognised(self, send: Callable[..., list[Any]], instance: Any) -> None:
        ((prediction,),) = send({"instances": [instance]})
        assert open_picture(prediction).size == (64, 64)

    def test_describe_is_answered(self, send: Callable[..., list[Any]]) -> None:
        assert send({"instances": [{"describe": True}]})[0][0]["dtype"] == "float32"


def test_a_job_is_what_the_generator_gets(second_door: Door, archive_root: Path) -> None:
    seen: list[Job] = []

    class Recording(Generator):
        def generate(self, jobs: Any) -> list[Outcome]:
            seen.extend(jobs)
            return super().generate(jobs)

    second_door._generator = Recording(second_door._generator._model, 4)
    handle(
        second_door,
        archive_root,
        [{"body": {"instances": ["a", {"prompt": "b", "num_inference_steps": 2.0}]}}],
    )
    assert [(job.prompt, job.num_inference_steps) for job in seen] == [("a", 3), ("b", 2)]
