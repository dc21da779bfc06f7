"""Batches through the door, with TorchServe's own context, envelopes and loader."""

from __future__ import annotations

import base64
import dataclasses
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

from handler.contract.drawing import OnEvent
from handler.contract.job import Failure, Job
from handler.contract.limits import Defaults, Limits
from handler.contract.picture_metadata import origin_in
from handler.doors.torchserve.continuous import ContinuousBatches
from handler.doors.torchserve.door import Door
from handler.doors.torchserve.request_book import RequestBook
from handler.engine.engine import Engine, Finished
from handler.engine.runner import Runner
from handler.engine.ticket import Ticket
from handler.engine.watchdog import Watchdog

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
    assert receipt["timings"].keys() == {"queue", "denoise", "decode", "encode"}
    again = {**receipt["settings"], "seed": receipt["seed"], "response": "image"}
    ((_, second),) = ask({"instances": [again]})
    assert second["predictions"] == [full["image"]]


def test_a_file_carries_its_settings_where_that_is_asked_for(ask: Ask) -> None:
    body = {"prompt": "a cat", "output_format": "png", "response": "full", "metadata": True}
    ((_, answer),) = ask({"instances": [body]})
    prediction = answer["predictions"][0]
    carried = origin_in(open_picture(prediction["image"]).info["parameters"])
    assert carried is not None
    assert carried.items() <= prediction["receipt"].items()
    ((_, again),) = ask({"instances": [{**carried["settings"], "seed": carried["seed"]}]})
    assert again["predictions"][0]["image"] == prediction["image"]


def test_guidance_that_ends_early_draws_another_picture(ask: Ask) -> None:
    fields = {"prompt": "a cat", "seed": 1, "guidance_scale": 5, "response": "full"}
    shares = [{**fields, "guidance_until": share} for share in (0, 0.5, 1)]
    ((_, answer),) = ask({"instances": [fields, *shares]})
    whole, none, half, all_steps = (one["receipt"]["pixels_sha256"] for one in answer["predictions"])
    assert whole == all_steps
    assert len({whole, half, none}) == 3


def test_a_seed_too_large_for_a_double_comes_back_as_a_string(ask: Ask) -> None:
    seeds = [2**53 - 1, 2**53, 2**63]
    instances = [{"prompt": "a", "seed": seed, "response": "full"} for seed in seeds]
    ((_, answer),) = ask({"instances": instances})
    received = [prediction["receipt"]["seed"] for prediction in answer["predictions"]]
    assert received == [2**53 - 1, str(2**53), str(2**63)]


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
    assert json.loads(str(text)) == ask({"instances": [{"describe": True}]})[0][1]["predictions"][0]


def with_limits(door: Door, **limits: Any) -> None:
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


class Broken(Engine):
    """An engine that fails as no engine may, once."""

    failures = 1

    def step(self) -> list[Finished]:
        if self.failures:
            self.failures -= 1
            raise OSError("the disk with the prompt 'secret' is gone")
        return super().step()


class HalfBroken(Engine):
    """An engine that cannot draw prompts that start with "bad"."""

    def submit(self, job: Job, on_event: OnEvent | None = None) -> Ticket | Failure:
        ticket = super().submit(job, on_event)
        self.bad = {*getattr(self, "bad", ()), *([ticket] if job.prompt.startswith("bad") else [])}
        return ticket

    def step(self) -> list[Finished]:
        failure = Failure(500, "internal", "mat1 and mat2 shapes cannot be multiplied")
        return [(ticket, failure if ticket in self.bad else outcome) for ticket, outcome in super().step()]


def with_engine(door: Door, kind: type[Engine]) -> None:
    engine = door._book.engine
    made = kind(engine.model, engine.options, engine.plan)
    door._book = RequestBook(Runner(made, Watchdog(seconds=600)))


def test_whatever_breaks_every_row_has_an_answer(second_door: Door, archive_root: Path) -> None:
    with_engine(second_door, Broken)
    answers = handle(second_door, archive_root, [{"body": {"instances": ["a"]}}] * 3)
    assert [status for status, _ in answers] == [500, 500, 500]
    assert "secret" not in json.dumps(answers)
    assert handle(second_door, archive_root, [{"body": {"instances": ["a"]}}])[0][0] == 200


def test_a_failed_picture_fails_its_own_request(second_door: Door, archive_root: Path) -> None:
    with_engine(second_door, HalfBroken)
    rows = [{"body": {"instances": ["a", "bad b"]}}, {"body": {"instances": ["c"]}}]
    (status, answer), (neighbour, _) = handle(second_door, archive_root, rows)
    assert (status, neighbour) == (500, 200)
    assert [problem["instance"] for problem in answer["error"]["problems"]] == [1]


def test_a_batch_that_takes_too_long_is_answered_in_time(second_door: Door, archive_root: Path) -> None:
    second_door._settings = dataclasses.replace(second_door._settings, response_timeout=0)
    ((status, answer),) = handle(second_door, archive_root, [{"body": {"instances": ["a", "b"]}}])
    assert (status, answer["error"]["code"]) == (504, "took_too_long")
    assert "fewer steps" in answer["error"]["message"]


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


def test_an_archive_of_the_narrowest_limits_loads(second_door: Door) -> None:
    narrow = dataclasses.replace(
        second_door._settings,
        defaults=Defaults(num_inference_steps=1, width=64, height=64, guidance_scale=1.0),
        limits=Limits(64, 64, 64, 64, 64 * 64, 1, 1.0, max_instances=1, max_prompt_characters=1),
    )
    second_door._settings = narrow
    second_door._warm_up()


def test_a_text_part_of_a_form_leaves_the_others_of_its_batch_alone(
    door: Door, archive_root: Path, ask: Ask
) -> None:
    good = {"instances": [{"prompt": "a", "seed": 1}]}
    answers = handle(door, archive_root, [{"body": good}, {"prompt": "from a form"}, {"body": b"[" * 1000}])
    expected = ask(good)[0][1]["predictions"][0]
    status, answer = answers[0]
    assert status == 200
    assert abs(pixels(answer["predictions"][0]) - pixels(expected)).max() <= 1
    assert answers[2][0] == 400


class TestUnderAStockEnvelope:
    """Where the envelopes are not ours, rows are instances and errors stay in-band."""

    @pytest.fixture
    def send(self, door: Door, archive_root: Path) -> Callable[..., list[Any]]:
        from ts.torch_handler.request_envelope.base import BaseEnvelope
        from ts.torch_handler.request_envelope.json import JSONEnvelope

        class StockEnvelope(JSONEnvelope):  # type: ignore[misc]
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


def test_a_job_is_what_the_engine_gets(second_door: Door, archive_root: Path) -> None:
    seen: list[Job] = []

    class Recording(Engine):
        def submit(self, job: Job, on_event: OnEvent | None = None) -> Ticket | Failure:
            seen.append(job)
            return super().submit(job, on_event)

    with_engine(second_door, Recording)
    handle(
        second_door,
        archive_root,
        [{"body": {"instances": ["a", {"prompt": "b", "num_inference_steps": 2.0}]}}],
    )
    assert [(job.prompt, job.num_inference_steps) for job in seen] == [("a", 3), ("b", 2)]


class TestContinuousBatching:
    """Calls as TorchServe 0.12 makes them: every open request again, its body only the first time."""

    @pytest.fixture
    def iterating(self, second_door: Door) -> Door:
        second_door._batches = ContinuousBatches(second_door._book)
        return second_door

    def call(self, door: Door, root: Path, rows: dict[str, Any]) -> dict[str, tuple[Any, Any, str]]:
        """What the frontend learns of each request: the stopping criterion's verdict, status and text."""
        context = make_context(root, len(rows))
        context.request_ids = dict(enumerate(rows))
        texts = [str(text) for text in door.handle(list(rows.values()), context)]
        verdicts = [criterion(text) for criterion, text in zip(context.stopping_criteria, texts, strict=True)]
        statuses = [context.get_response_status(index)[0] for index in range(len(rows))]
        return dict(zip(rows, zip(verdicts, statuses, texts, strict=True), strict=True))

    def test_a_request_is_kept_until_its_picture_is_drawn(
        self, iterating: Door, archive_root: Path, ask: Ask
    ) -> None:
        body = {"instances": [{"prompt": "a", "seed": 5, "num_inference_steps": 30}]}
        said = self.call(iterating, archive_root, {"one": {"body": body}, "two": {"body": {"instances": 1}}})
        assert said["one"] == (False, 200, "{")
        verdict, status, text = said["two"]
        assert (verdict, status, json.loads(text)["error"]["code"]) == (None, 400, "invalid_request")
        said = {}
        while not said or said["one"][0] is False:
            said = self.call(iterating, archive_root, {"one": {}})
        verdict, status, text = said["one"]
        assert (verdict, status) == (True, 200)
        assert json.loads("{" + text) == ask(body)[0][1]

    def test_what_fails_late_says_so_in_the_body(self, second_door: Door, archive_root: Path) -> None:
        with_engine(second_door, HalfBroken)
        second_door._batches = ContinuousBatches(second_door._book)
        rows: dict[str, Any] = {
            "one": {"body": {"instances": [{"prompt": "bad", "num_inference_steps": 30}]}}
        }
        said = self.call(second_door, archive_root, rows)
        assert said["one"] == (False, 200, "{")
        while said["one"][0] is False:
            said = self.call(second_door, archive_root, {"one": {}})
        verdict, status, text = said["one"]
        assert (verdict, status) == (True, 200)
        assert json.loads("{" + text)["error"]["code"] == "internal"
        assert json.loads("{" + text)["error"]["status"] == 500

    def test_a_full_queue_answers_429_and_when_to_come_back(
        self, iterating: Door, archive_root: Path
    ) -> None:
        context = make_context(archive_root, 20)
        bodies = [{"body": {"instances": ["a"] * 4}} for _ in range(20)]
        places = iterating._book.engine.options
        iterating.handle(bodies, context)
        statuses = [context.get_response_status(index)[0] for index in range(20)]
        assert statuses.count(429) == 20 - (places.max_live + places.max_queue) // 4
        refused = statuses.index(429)
        assert int(context.get_response_headers(refused)["Retry-After"]) >= 1
        iterating._book.abandon()

    def test_whatever_breaks_every_request_is_ended(self, second_door: Door, archive_root: Path) -> None:
        with_engine(second_door, Broken)
        second_door._batches = ContinuousBatches(second_door._book)
        rows: dict[str, Any] = {name: {"body": {"instances": ["a"]}} for name in "ab"}
        codes: dict[str, str] = {}
        while rows:
            said = self.call(second_door, archive_root, rows)
            ended = {name: text for name, (verdict, _, text) in said.items() if verdict is not False}
            codes |= {
                name: json.loads(text if text.startswith("{") else "{" + text)
                .get("error", {})
                .get("code", "picture")
                for name, text in ended.items()
            }
            rows = {name: {} for name in rows if name not in ended}
        assert codes["a"] == "internal"
        assert codes["b"] in ("internal", "picture"), "it may have come too late for the step that broke"
