"""`marquee predict`: its options as fields of a request, its files, and what it refuses before it asks."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile_server import picture
from test_client import encoded, scripted

from pipeline.cli import app, edge
from pipeline.cli.picture_fields import PictureFields
from pipeline.client import PayloadTooLarge, VertexEndpoint
from pipeline.client.source_files import MOST_BYTES


def predict(url: str, *options: str) -> int:
    return edge.run(app, ["predict", "a red circle", "--url", url, *options])


def test_every_option_is_a_field_of_the_request(tmp_path: Path) -> None:
    image, mask = tmp_path / "image.jpg", tmp_path / "mask.png"
    image.write_bytes(picture())
    mask.write_bytes(picture("png"))
    options = ["--image", str(image), "--mask-image", str(mask), "--strength", "0.6", "--images", "2"]
    options += ["--lora", "ink:0.5", "--lora", "stripes", "--preset", "fast", "--guidance-until", "0.4"]
    options += ["--metadata", "--seed", "18446744073709551615", "--steps", "3", "--guidance", "1.5"]
    options += ["--negative", "x", "--width", "16", "--height", "8", "--scheduler", "DDIM", "--quality", "80"]
    answer = {"predictions": [[encoded("red"), encoded("blue")]]}
    with scripted((200, answer, {})) as script:
        assert predict(script.url, "-o", str(tmp_path / "out.png"), *options) == 0
    assert script.bodies[0]["parameters"] == {
        "seed": "18446744073709551615",
        "num_inference_steps": 3,
        "guidance_scale": 1.5,
        "guidance_until": 0.4,
        "negative_prompt": "x",
        "preset": "fast",
        "image": base64.b64encode(image.read_bytes()).decode(),
        "mask_image": base64.b64encode(mask.read_bytes()).decode(),
        "strength": 0.6,
        "num_images_per_prompt": 2,
        "loras": [{"name": "ink", "weight": 0.5}, {"name": "stripes"}],
        "width": 16,
        "height": 8,
        "scheduler": "DDIM",
        "output_format": "png",
        "quality": 80,
        "metadata": True,
    }
    written = [base64.b64encode((tmp_path / f"out-{n}.png").read_bytes()).decode() for n in (1, 2)]
    assert written == answer["predictions"][0]


def test_values_that_are_zero_are_sent_and_what_is_not_said_is_left_out() -> None:
    assert PictureFields().parameters() == {}
    assert PictureFields(guidance_scale=0.0, guidance_until=0.0).parameters() == {
        "guidance_scale": 0.0,
        "guidance_until": 0.0,
    }


def test_the_pictures_of_several_prompts_are_all_written_and_their_receipts(tmp_path: Path) -> None:
    full = {"images": [encoded()] * 2, "receipts": [{"seed": 1}, {"seed": 2}]}
    with scripted((200, {"predictions": [full, full]}, {})) as script:
        line = ["predict", "a cat", "a dog", "--url", script.url, "--images", "2"]
        receipts = tmp_path / "receipts.json"
        assert edge.run(app, [*line, "-o", str(tmp_path / "x.png"), "--receipt", str(receipts)]) == 0
    assert sorted(one.name for one in tmp_path.glob("*.png")) == [f"x-{n}.png" for n in (1, 2, 3, 4)]
    assert json.loads(receipts.read_text()) == [{"seed": 1}, {"seed": 2}] * 2


def wrong_files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "moving.gif").write_bytes(picture("gif"))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "large.png").write_bytes(picture("png") + bytes(MOST_BYTES))
    return {
        "text.png": "is no png, jpeg or webp picture: it begins b'no picture'",
        "moving.gif": "is no png, jpeg or webp picture",
        "empty.png": "it is empty",
        "large.png": f"has more than {MOST_BYTES:,} bytes",
        "absent.png": "cannot be read: No such file",
        ".": "is no file",
    }


def test_a_file_that_cannot_be_sent_is_named_with_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, words in wrong_files(tmp_path).items():
        for options in (["--image", name], ["--image", "good.png", "--mask-image", name]):
            Path("good.png").write_bytes(picture("png"))
            assert predict("http://127.0.0.1:1", *options) == 1
            err = capsys.readouterr().err
            assert err.startswith(f"error: {options[-2]} {name} ")
            assert words in err
            assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strength", "0.5"], "--strength needs a picture"),
        (["--mask-image", "mask.png"], "--mask-image needs a picture"),
        (["--lora", ":1"], "names no LoRA"),
        (["--lora", "ink:"], "is no weight"),
        (["--lora", "ink:nan"], "is no weight"),
        (["--lora", "ink:much"], "'much' is no weight"),
        (["--lora", "ink", "--lora", "ink:2"], "names 'ink' twice"),
        (["--receipt", "absent/receipt.json"], "--receipt absent/receipt.json: there is no folder absent"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("http://127.0.0.1:1", *options) == 1
    error, cure = capsys.readouterr().err.splitlines()
    assert words in error
    assert cure.startswith("  cure: ")


@pytest.mark.parametrize(
    ("dedicated", "size", "sent"),
    [(False, 1_572_000, True), (False, 1_573_000, False), (True, 9_999_000, True), (True, 10_000_001, False)],
)
def test_a_body_that_the_endpoint_would_refuse_is_not_sent(dedicated: bool, size: int, sent: bool) -> None:
    came: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        came.append(len(request.content))
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"predictions": [encoded()]}).encode()))

    asked: list[dict[str, Any]] = [{"prompt": "x", "image": "A" * size}]
    with httpx.Client(transport=httpx.MockTransport(answer)) as web:
        endpoint = VertexEndpoint(web, "localhost", "projects/p", dedicated=dedicated)
        if sent:
            assert len(endpoint.predict(asked)) == 1
        else:
            kind = "dedicated" if dedicated else "shared"
            with pytest.raises(PayloadTooLarge, match=f"a {kind} endpoint of Vertex AI takes at most"):
                endpoint.predict(asked)
    assert len(came) == sent
