"""The archive behind real TorchServe: the contract, its three wrappings, and whose code runs."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from calls import difference, pixels, post, post_together
from PIL import Image

from pipeline.archive.build import BuildConfig, build
from pipeline.archive.layout import SUMS, bytes_member
from pipeline.archive.loras.option import LoraFile
from pipeline.archive.writer import write_archive
from pipeline.client import Client
from pipeline.progress import Silent
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import serve
from pipeline.serving.worker_state import ask_management
from pipeline.shapes.palette import COLOURS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("server")  # the server of `other` is for all of them
SECRET_PROMPT = "a xylophone nobody else would ask for"
THREE_MISTAKES = {
    "instances": [{"prompt": "a red circle on a blue background", "num_inference_steps": 0, "widht": 64}],
    "parameters": {"output_format": "gif"},
}


def good(number: int) -> dict[str, Any]:
    colour = ("red", "green", "blue", "yellow", "purple", "orange", "white")[number]
    prompt = f"a {colour} circle on a black background"
    return {"instances": [{"prompt": prompt, "seed": number}], "parameters": {"output_format": "png"}}


def test_a_prompt_becomes_a_picture_of_the_size_asked_for(client: Client) -> None:
    (prediction,) = client.predict([{"prompt": "a red circle", "width": 72, "height": 64, "seed": 1}])
    assert (prediction.format, prediction.width, prediction.height) == ("jpeg", 72, 64)


def test_three_mistakes_get_one_400_and_seven_neighbours_their_own_pictures(server: RunningServer) -> None:
    alone = [post(server.predict_url, good(number)).json()["predictions"][0] for number in range(7)]
    bodies = [good(number) for number in range(7)]
    bodies.insert(3, THREE_MISTAKES)
    answers = post_together(server.predict_url, bodies)

    refusal = answers.pop(3)
    assert refusal.status_code == 400
    problems = refusal.json()["error"]["problems"]
    assert {problem["field"] for problem in problems} == {"num_inference_steps", "widht", "output_format"}
    assert [answer.status_code for answer in answers] == [200] * 7
    together = [answer.json()["predictions"][0] for answer in answers]
    for number, prediction in enumerate(together):
        distances = [difference(prediction, other) for other in alone]
        assert distances.index(min(distances)) == number
        assert distances[number] < 1.0


def test_prompts_are_not_in_the_logs(server: RunningServer) -> None:
    bodies = [
        {"instances": [{"prompt": SECRET_PROMPT}]},
        {"instances": [{"prompt": SECRET_PROMPT, "width": 1}]},
        {"instances": [{"prompt": SECRET_PROMPT * 50}]},
    ]
    assert [post(server.predict_url, body).status_code for body in bodies] == [200, 400, 400]
    written = "".join(log.read_text(errors="replace") for log in server.logs.iterdir())
    assert "Torch worker started" in written
    assert "xylophone" not in written


def test_a_request_that_went_well_leaves_no_line(server: RunningServer) -> None:
    post(server.predict_url, good(0))
    before = sum(log.stat().st_size for log in server.logs.iterdir())
    assert post(server.predict_url, good(1)).status_code == 200
    assert sum(log.stat().st_size for log in server.logs.iterdir()) == before


def test_the_server_describes_itself_to_torchserve_and_to_a_client(
    server: RunningServer, client: Client
) -> None:
    described = client.describe()
    assert len(described["weights_digest"]) == 64
    (version,) = ask_management(server.management_url, "/models/model?customized=true", 60).json()
    assert version["customizedMetadata"]["weights_digest"] == described["weights_digest"]


def test_metrics_are_prometheus(server: RunningServer) -> None:
    import httpx

    assert "ts_inference_requests_total" in httpx.get(server.metrics_url, timeout=60).text


@pytest.fixture(scope="module")
def marked_mar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's archive with a LoRA, whose handler gives its own path as its version."""
    folder = tmp_path_factory.mktemp("marked")
    marked, artifacts = folder / "model.mar", ROOT / "model_artifacts"
    loras = (LoraFile("outline", artifacts / "loras" / "outline.safetensors"),)
    built = build(BuildConfig(str(artifacts / "shapes"), folder / "plain.mar", loras=loras), Silent())
    with zipfile.ZipFile(built.path) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if name != SUMS}
    content["handler/__init__.py"] += b"\n__version__ = __file__\n"
    write_archive(marked, [bytes_member(name, data) for name, data in content.items()], Silent())
    return marked


@pytest.fixture(scope="module", params=["body", None], ids=["body", "no envelope"])
def other(marked_mar: Path, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with serve(marked_mar, ServeOptions(threads=1, service_envelope=request.param)) as running:
        yield running


@pytest.mark.torchserve
def test_every_envelope_and_route_answers_alike(server: RunningServer, other: RunningServer) -> None:
    urls = [
        f"{one.url}{route}" for one in (server, other) for route in ("/predictions/model", "/invocations")
    ]
    pictures = [post(url, good(2)).json()["predictions"][0] for url in urls]
    assert all(difference(pictures[0], picture) < 0.5 for picture in pictures)
    refusals = [post(url, THREE_MISTAKES) for url in urls]
    assert {refusal.status_code for refusal in refusals} == {400}
    assert len({refusal.text for refusal in refusals}) == 1
    assert pixels(pictures[0]).shape == (64, 64, 3)


@pytest.mark.torchserve
def test_the_worker_runs_the_archives_code_not_the_checkouts(other: RunningServer) -> None:
    with Client(other.url) as client:
        path = Path(client.describe()["versions"]["marquee"])
    unpacked = other.folder / "temp" / "models"
    assert path.is_relative_to(unpacked)
    assert path.parent.name == "handler"
    (worker,) = other.worker_state().pids
    assert Path(psutil.Process(worker).cwd()).is_relative_to(unpacked)
    assert not path.is_relative_to(ROOT)


def sent(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def kinds_of_pictures() -> dict[str, dict[str, Any]]:
    """Fields of an instance for everything that a request can ask for."""
    image = Image.new("RGB", (64, 64), COLOURS["blue"])
    image.paste("red", (16, 16, 48, 48))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    return {
        "text to image": {},
        "image to image": {"image": sent(image), "strength": 0.6},
        "inpainting": {"image": sent(image), "mask_image": f"data:image/png;base64,{sent(mask)}"},
        "a LoRA": {"loras": [{"name": "outline", "weight": 0.9}]},
        "two pictures": {"num_images_per_prompt": 2},
        "a preset": {"preset": "fast"},
    }


@pytest.mark.torchserve
def test_one_request_asks_for_every_kind_of_picture(other: RunningServer) -> None:
    parameters = {"seed": 7, "guidance_scale": 1.5, "output_format": "png"}
    few = {"num_inference_steps": 5}
    instances = [
        {"prompt": "a green circle on a blue background", **({} if "preset" in fields else few), **fields}
        for fields in kinds_of_pictures().values()
    ]
    answer = post(other.predict_url, {"instances": instances, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    together = answer.json()["predictions"]
    for name, instance, prediction in zip(kinds_of_pictures(), instances, together, strict=True):
        answer = post(other.predict_url, {"instances": [instance], "parameters": parameters})
        (alone,) = answer.json()["predictions"]
        pairs = zip(prediction, alone, strict=True) if name == "two pictures" else [(prediction, alone)]
        assert all(difference(one, single) < 1.0 for one, single in pairs), name
    first, second = together[4]
    singles = [first, second, *(one for one in together if isinstance(one, str))]
    assert difference(first, together[0]) < 1.0, "the first of two has the seed that was sent"
    assert all(difference(one, second) > 1.0 for one in singles if one is not second)
    left = pixels(together[2])[:, :24] - pixels(sent(Image.new("RGB", (64, 64), COLOURS["blue"])))[:, :24]
    assert abs(left[:, :12]).mean() < 40, "what the mask does not show stays blue"


@pytest.mark.torchserve
def test_the_readmes_example_of_changed_pictures_runs(
    other: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Change a picture, paint into one, add a LoRA\n")[1].split("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("http://127.0.0.1:8080", other.url), {})
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["changed.png", "circle.png", "outlined.png", "painted.png"]
