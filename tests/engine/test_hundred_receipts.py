"""A hundred pictures of all kinds, drawn in one company, are drawn again alone from their receipts."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import zipfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from receipts_in_process import InProcess

from handler.contract.schedulers import SCHEDULERS
from pipeline.archive.build import BuildConfig, build
from pipeline.archive.loras.option import LoraFile
from pipeline.progress import Silent

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "model_artifacts"
STYLES = ("outline", "stripes")
PICTURES = 100
LORAS: list[list[dict[str, Any]]] = [
    [],
    [],
    [{"name": "outline"}],
    [{"name": "stripes", "weight": 0.5}, {"name": "outline", "weight": -0.3}],
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with its LoRAs, unpacked."""
    root = tmp_path_factory.mktemp("hundred-receipts")
    loras = tuple(LoraFile(style, ARTIFACTS / "loras" / f"{style}.safetensors") for style in STYLES)
    built = build(BuildConfig(str(ARTIFACTS / "shapes"), root / "model.mar", loras=loras), Silent())
    with zipfile.ZipFile(built.path) as packed:
        packed.extractall(root / "unpacked")
    return root / "unpacked"


def sources(folder: Path) -> dict[str, bytes]:
    """A photo and a mask, in files that are not 64 x 64."""
    photo, mask = Image.new("RGB", (96, 96), "navy"), Image.new("L", (96, 96))
    ImageDraw.Draw(photo).ellipse((20, 20, 70, 76), "yellow")
    ImageDraw.Draw(mask).rectangle((48, 0, 96, 96), 255)
    files = {}
    for name, image, format_name in (("image", photo, "jpeg"), ("mask_image", mask, "png")):
        file = io.BytesIO()
        image.save(file, format_name)
        files[name] = file.getvalue()
        (folder / name).write_bytes(file.getvalue())
    return files


def instances(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """One after the other of the three families, two pictures each, everything else at random."""
    chance = random.Random(11)
    coded = {name: b64encode(data).decode() for name, data in files.items()}
    kinds: list[dict[str, Any]] = [
        {},
        {"image": coded["image"], "strength": 0.7},
        {**coded, "strength": 1.0},
    ]
    return [
        {
            "prompt": chance.choice(["a red circle on a blue background", "a green star", "x"]),
            "seed": str(2**64 - 1) if number == 0 else chance.randrange(2**32),
            "num_inference_steps": chance.randint(2, 4),
            "scheduler": chance.choice(list(SCHEDULERS)),
            "guidance_scale": chance.choice([1.0, 1.5, 5.0]),
            "guidance_until": chance.choice([1.0, 0.5]),
            "width": chance.choice([64, 64, 64, 32]),
            "height": 64,
            "loras": chance.choice(LORAS),
            "num_images_per_prompt": 2,
            "response": "full",
            "output_format": "png",
            **kinds[number % len(kinds)],
        }
        for number in range(PICTURES // 2)
    ]


@pytest.fixture(scope="module")
def drawn(archive: Path) -> list[dict[str, Any]]:
    """The predictions of a hundred pictures, of which up to sixteen are drawn at once, as JSON holds them."""
    asked = instances(sources(archive.parent))
    engine = InProcess(archive)
    pending = [engine.begin({"instances": asked[begin : begin + 5]}) for begin in range(0, len(asked), 5)]
    answers = [json.loads(one.reply.result().text) for one in pending]
    engine.close()
    return [prediction for answer in answers for prediction in answer["predictions"]]


def replayed(archive: Path, predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a new process finds that draws each picture of an answer alone."""
    folder = archive.parent
    (folder / "answer.json").write_text(json.dumps({"predictions": predictions}))
    program = [sys.executable, str(Path(__file__).with_name("receipts_in_process.py")), str(archive)]
    files = [str(folder / name) for name in ("answer.json", "image", "mask_image")]
    done = subprocess.run(
        [*program, *files], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hundred_receipts_of_mixed_company_replay_alone_bit_by_bit(
    archive: Path, drawn: list[dict[str, Any]]
) -> None:
    receipts = [receipt for one in drawn for receipt in one["receipts"]]
    assert len(receipts) == PICTURES
    assert {one["family"] for one in receipts} == {"text_to_image", "image_to_image", "inpaint"}
    assert len({one["pixels_sha256"] for one in receipts}) > PICTURES - 5
    assert {one["mode"] for one in receipts} == {"strict"}
    broken = json.loads(json.dumps(drawn[0]))
    broken["receipts"][1]["seed"] = 1
    found = replayed(archive, [*drawn, broken])
    assert found[:PICTURES] == [{"same": True, "differences": []}] * PICTURES
    assert [one["same"] for one in found[PICTURES:]] == [True, False]
