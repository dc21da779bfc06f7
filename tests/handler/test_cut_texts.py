"""Texts longer than the text encoder takes: cut as diffusers cuts them, and the answer says so."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from door_batches import handle
from PIL import Image

from handler.doors.torchserve.door import Door
from pipeline.client.predictions import parse_predictions
from pipeline.client.request_body import Asked

Ask = Callable[..., list[tuple[int, Any]]]
# The tiny model takes 14 tokens, and each of these letters is one.
LONG = "a b c d e f g h i j k l m n o p q"
FITTING = "a b c d e f g h i j k l m n"


def pixels(text: str) -> Any:
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int)


def test_a_long_prompt_is_drawn_as_its_beginning_and_said_to_be_cut(ask: Ask) -> None:
    instances = [{"prompt": text, "seed": 1} for text in (FITTING, LONG, "a")]
    ((status, answer),) = ask({"instances": instances})
    assert status == 200
    fitting, cut, other = (pixels(prediction) for prediction in answer["predictions"])
    assert abs(fitting - cut).max() <= 1
    assert abs(fitting - other).max() > 1
    (warning,) = answer["warnings"]
    assert (warning["instance"], warning["field"], warning["code"]) == (1, "prompt", "text_cut")
    assert "has 17 tokens and the text encoder takes 14" in warning["message"]
    assert "'o p q'" in warning["message"]


def test_nothing_is_said_where_nothing_was_cut(ask: Ask) -> None:
    ((_, answer),) = ask({"instances": [FITTING], "parameters": {"response": "full"}})
    assert answer.keys() == {"predictions"}
    assert answer["predictions"][0].keys() == {"image", "receipt"}
    assert "cut_texts" not in answer["predictions"][0]["receipt"]


@pytest.mark.parametrize(("guidance", "fields"), [(7.5, {"prompt", "negative_prompt"}), (1.0, {"prompt"})])
def test_the_receipt_says_which_part_of_which_text_was_not_used(
    ask: Ask, guidance: float, fields: set[str]
) -> None:
    """Without guidance the negative prompt is not encoded at all."""
    instance = {"prompt": LONG, "negative_prompt": f"{LONG} r", "guidance_scale": guidance}
    ((_, answer),) = ask({"instances": [instance], "parameters": {"response": "full"}})
    (prediction,) = answer["predictions"]
    cut_texts = prediction["receipt"]["cut_texts"]
    assert cut_texts.keys() == fields
    assert cut_texts["prompt"] == {"tokens": 17, "tokens_taken": 14, "removed": "o p q"}
    assert {warning["field"] for warning in prediction["warnings"]} == fields


def test_a_text_is_said_to_be_cut_each_time_it_is_drawn(ask: Ask) -> None:
    """The second time its encoding comes from the cache."""
    for _ in range(2):
        ((_, answer),) = ask({"instances": [LONG]})
        assert len(answer["warnings"]) == 1


def test_long_warnings_leave_the_reply_within_its_limit(second_door: Door, archive_root: Path) -> None:
    text = "a " * 99
    body = {"instances": [{"prompt": text, "negative_prompt": text}] * 4}
    ((status, answer),) = handle(second_door, archive_root, [{"body": body}])
    assert status == 200
    assert max(len(warning["message"]) for warning in answer["warnings"]) < 300


@pytest.mark.parametrize("response", ["image", "full"])
def test_the_client_hands_the_warnings_on(ask: Ask, response: str) -> None:
    ((_, answer),) = ask({"instances": ["a", LONG], "parameters": {"response": response}})
    short, long = parse_predictions(answer, [Asked(), Asked()])
    assert short.warnings == ()
    assert len(long.warnings) == 1
    assert "17 tokens" in long.warnings[0]
    if response == "full":  # as Vertex's predict route passes it on
        again = parse_predictions({"predictions": answer["predictions"]}, [Asked(), Asked()])
        assert again[1].warnings == long.warnings
