"""Everything that a request can ask for, through the door: what is drawn, what fills in, what is refused."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image
from sent_pictures import right_half, sent, slope

Ask = Callable[..., list[tuple[int, Any]]]
FIELDS = {"num_inference_steps": 4, "guidance_scale": 4, "seed": 3}
IMAGE, MASK = sent(slope()), sent(right_half())
KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": IMAGE, "strength": 0.5},
    "inpaint": {"image": IMAGE, "mask_image": MASK},
    "lora": {"loras": ["ink", {"name": "chalk", "weight": -0.5}]},
    "two": {"num_images_per_prompt": 2},
    "preset": {"preset": "fast"},
}


def pixels(text: str) -> Any:
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")).astype(int)


def drawn(ask: Ask, **fields: Any) -> Any:
    """The only prediction of a request of one instance."""
    ((status, answer),) = ask({"instances": [{"prompt": "a cat", **FIELDS, **fields}]})
    assert status == 200, answer
    return answer["predictions"][0]


def problems(ask: Ask, **fields: Any) -> list[dict[str, Any]]:
    ((status, answer),) = ask({"instances": [{"prompt": "a cat", **fields}]})
    assert status == 400, answer
    return list(answer["error"]["problems"])


@pytest.mark.parametrize(
    ("mask", "strength"), [(None, 0.8), (None, 0.5), (right_half(), 1.0), (right_half(), 0.6)]
)
def test_a_picture_is_changed_as_diffusers_changes_it(
    ask: Ask, archive_root: Path, mask: Image.Image | None, strength: float
) -> None:
    kind: Any = StableDiffusionImg2ImgPipeline if mask is None else StableDiffusionInpaintPipeline
    pipeline = kind.from_pretrained(archive_root / "model", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    given = {} if mask is None else {"mask_image": mask}
    size = {} if mask is None else {"width": 64, "height": 64}
    wanted = pipeline(
        "a cat",
        image=slope(),
        **given,
        **size,
        strength=strength,
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator("cpu").manual_seed(3),
    ).images[0]
    fields = {"image": IMAGE, **({} if mask is None else {"mask_image": MASK})}
    said = {} if strength in (0.8, 1.0) else {"strength": strength}  # the other two are what is not said
    assert abs(pixels(drawn(ask, **fields, **said)) - numpy.asarray(wanted).astype(int)).max() <= 1


def test_one_request_asks_for_everything_at_once(ask: Ask) -> None:
    alone = {name: drawn(ask, **fields) for name, fields in KINDS.items()}
    instances = [{"prompt": "a cat", **FIELDS, **fields} for fields in KINDS.values()]
    ((status, first), (other, second)) = ask({"instances": instances[:3]}, {"instances": instances[3:]})
    assert (status, other) == (200, 200), (first, second)
    for name, prediction in zip(KINDS, [*first["predictions"], *second["predictions"]], strict=True):
        pairs = zip(prediction, alone[name], strict=True) if name == "two" else [(prediction, alone[name])]
        assert all(abs(pixels(together) - pixels(single)).max() <= 1 for together, single in pairs), name
    different = [alone[name] for name in KINDS if name not in ("two", "preset")]
    assert len(set(different)) == len(different)


def test_several_pictures_are_those_of_the_next_seeds(ask: Ask) -> None:
    seeds = [2**64 - 1, 0, 1]
    several = drawn(ask, seed=str(seeds[0]), num_images_per_prompt=3, response="full")
    assert several.keys() == {"images", "receipts"}
    assert [int(receipt["seed"]) for receipt in several["receipts"]] == seeds
    for seed, image in zip(seeds, several["images"], strict=True):
        assert abs(pixels(image) - pixels(drawn(ask, seed=str(seed)))).max() <= 1
    assert isinstance(drawn(ask, num_images_per_prompt=1), str)
    assert len(drawn(ask, num_images_per_prompt=2)) == 2


def test_a_receipt_tells_all_that_was_asked_for(ask: Ask) -> None:
    receipt = drawn(ask, response="full", **KINDS["inpaint"], **KINDS["lora"])["receipt"]
    assert receipt["family"] == "inpaint"
    assert receipt["settings"]["strength"] == 1.0
    assert receipt["inputs"] == {
        name: {"sha256": hashlib.sha256(base64.b64decode(text)).hexdigest()}
        for name, text in (("image", IMAGE), ("mask_image", MASK))
    }
    assert [(one["name"], one["weight"]) for one in receipt["loras"]] == [("ink", 0.5), ("chalk", -0.5)]
    assert all(len(one["sha256"]) == 64 for one in receipt["loras"])
    preset = drawn(ask, response="full", num_inference_steps=1)["receipt"]["settings"]
    assert not {"preset", "num_images_per_prompt", "image", "mask_image"} & preset.keys()
    assert IMAGE[:40] not in str(receipt)


def test_a_preset_is_told_as_the_settings_that_it_stands_for(ask: Ask) -> None:
    ((_, answer),) = ask(
        {
            "instances": ["a", {"prompt": "a", "preset": "quality"}, {"prompt": "a", "preset": None}],
            "parameters": {"preset": "fast", "response": "full"},
        },
    )
    told = [one["receipt"]["settings"]["num_inference_steps"] for one in answer["predictions"]]
    assert told == [25, 50, 3]


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (72, 96)),
        ({"width": 64}, (64, 96)),
        ({"width": 48, "height": 40}, (48, 40)),
        ({"mask_image": sent(right_half(39, 52))}, (72, 96)),
    ],
)
def test_a_picture_is_drawn_in_its_own_size_unless_another_is_given(
    ask: Ask, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    assert pixels(drawn(ask, image=sent(slope(78, 103)), **fields)).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"mask_image": MASK}, "mask_image", "there is none"),
        ({"strength": 0.5}, "strength", "there is none"),
        ({"image": None, "strength": 0.5}, "strength", "there is none"),
        ({"image": IMAGE, "strength": 0.2}, "strength", "0.334 or more"),
        ({"image": IMAGE, "mask_image": MASK, "strength": 0}, "strength", "leaves no step"),
        ({"image": IMAGE, "strength": 1.01}, "strength", "from 0 to 1"),
        ({"image": IMAGE, "mask_image": sent(right_half(64, 32))}, "mask_image", "64x32 and the image 64x64"),
        ({"image": sent(slope(200, 150))}, "image", "send width and height, for example 104 and 72"),
        ({"image": sent(slope(20, 20))}, "image", "send width and height, for example 32 and 32"),
        ({"image": sent(slope(128, 128))}, "image", "at most 8192 pixels"),
        ({"image": IMAGE, "mask_image": "no picture"}, "mask_image", "a png, jpeg or webp picture"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt", "from 1 to 4"),
        ({"num_images_per_prompt": 5}, "num_images_per_prompt", "from 1 to 4"),
        ({"num_images_per_prompt": None}, "num_images_per_prompt", "from 1 to 4"),
        ({"loras": ["inc"]}, "loras", "names: ink, chalk"),
        ({"loras": [{"name": "inc", "weight": 1}]}, "loras", "names 'inc', which the archive does not hold"),
        ({"loras": ["ink", {"name": "ink"}]}, "loras", "ink more than once"),
        ({"loras": [{"name": "ink", "weight": 10.5}]}, "loras", "weights from -10 to 10"),
        ({"loras": [{"name": "ink", "weight": "1"}]}, "loras", "a weight that is a string"),
        ({"loras": [{"weight": 1}]}, "loras", "no name"),
        ({"loras": [{"name": "ink", "scale": 1}]}, "loras", "unknown key 'scale'"),
        ({"loras": "ink"}, "loras", "is a string"),
        ({"loras": {"ink": 1}}, "loras", "is an object"),
        ({"loras": [5] * 9}, "loras", "is a number"),
        ({"preset": "slow"}, "preset", "one of fast, quality"),
        ({"preset": 1}, "preset", "one of fast, quality"),
    ],
)
def test_what_is_refused_is_named(ask: Ask, fields: dict[str, Any], field: str, said: str) -> None:
    (problem,) = problems(ask, **fields)
    assert (problem["instance"], problem["field"]) == (0, field)
    assert said in problem["message"]


def test_a_request_has_no_more_pictures_than_it_may_have_instances(ask: Ask) -> None:
    three = {"prompt": "a cat", "num_images_per_prompt": 3}
    ((status, answer),) = ask({"instances": [three, {**three, "num_images_per_prompt": 2}]})
    (problem,) = answer["error"]["problems"]
    assert (status, problem["field"], problem["value"]) == (400, "num_images_per_prompt", 5)
    assert "at most 4 pictures" in problem["message"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("init_image", "image"),
        ("img", "image"),
        ("mask", "mask_image"),
        ("denoising_strength", "strength"),
        ("n", "num_images_per_prompt"),
        ("num_images", "num_images_per_prompt"),
        ("sampleCount", "num_images_per_prompt"),
        ("lora", "loras"),
    ],
)
def test_other_clients_names_are_suggested_and_not_taken(ask: Ask, name: str, meant: str) -> None:
    (problem,) = problems(ask, **{name: IMAGE})
    assert (problem["field"], problem["did_you_mean"]) == (name, meant)
    assert IMAGE[:20] not in str(problem)


def test_the_archive_describes_what_can_be_asked_for(ask: Ask) -> None:
    ((_, answer),) = ask({"instances": [{"describe": True}]})
    description = answer["predictions"][0]
    assert set(description["families"]) == {"text_to_image", "image_to_image", "inpaint"}
    assert description["presets"] == {
        "fast": {"num_inference_steps": 25},
        "quality": {"num_inference_steps": 50},
    }
    assert {name: lora["default_weight"] for name, lora in description["loras"].items()} == {
        "ink": 0.5,
        "chalk": 1.0,
    }
    assert description["limits"]["max_images_per_prompt"] == 8
    assert description["image_formats"] == ["png", "jpeg", "webp"]
