"""A pipeline with the nine-channel UNet for inpainting: built, served by real TorchServe, asked to paint."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from calls import pixels, post
from PIL import Image
from safetensors.numpy import load_file, save_file

from pipeline.archive.build import BuildConfig, build
from pipeline.progress import Silent
from pipeline.serving.http_door import start_http
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import serve

SHAPES = Path(__file__).parents[2] / "model_artifacts" / "shapes"
pytestmark = pytest.mark.torchserve


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def write_inpainting_pipeline(folder: Path) -> None:
    """The embedded model with five input channels more, of which its UNet makes nothing."""
    shutil.copytree(SHAPES, folder)
    edit(folder / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    edit(folder / "unet/config.json", in_channels=9)
    (weights,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    first = tensors["conv_in.weight"]
    more = np.zeros((len(first), 5, *first.shape[2:]), first.dtype)
    tensors["conv_in.weight"] = np.ascontiguousarray(np.concatenate([first, more], axis=1))
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inpainting")
    write_inpainting_pipeline(folder / "model")
    return build(BuildConfig(str(folder / "model"), folder / "model.mar"), Silent()).path


@pytest.fixture(scope="module")
def painting(mar: Path) -> Iterator[RunningServer]:
    with serve(mar, ServeOptions(threads=1)) as running:
        yield running


def sent(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def test_it_paints_and_names_what_it_cannot_draw(painting: RunningServer) -> None:
    described = post(painting.predict_url, {"instances": [{"describe": True}]}).json()["predictions"][0]
    assert described["families"] == ["inpaint"]
    fields = {"prompt": "a red circle", "num_inference_steps": 4, "seed": 1, "output_format": "png"}
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    pictures = {"image": sent(Image.new("RGB", (64, 64), "blue")), "mask_image": sent(mask)}
    painted = post(painting.predict_url, {"instances": [{**fields, **pictures}]})
    assert painted.status_code == 200, painted.text
    assert pixels(painted.json()["predictions"][0]).shape == (64, 64, 3)
    for given in ({}, {"image": pictures["image"]}):
        refused = post(painting.predict_url, {"instances": [{**fields, **given}]})
        assert refused.status_code == 400
        assert "send image and mask_image" in refused.json()["error"]["message"]


def test_the_http_door_becomes_ready_with_it(mar: Path) -> None:
    server = start_http(mar, ServeOptions(port=0, threads=1))
    try:
        described = post(server.predict_url, {"instances": [{"describe": True}]}).json()["predictions"][0]
        assert described["families"] == ["inpaint"]
    finally:
        server.stop()
