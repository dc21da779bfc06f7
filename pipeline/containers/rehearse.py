"""`marquee rehearse`: serve an archive for a prebuilt container in its twin, and check the picture.

The twin is Python 3.9 with torch 2.4.1 and nothing of Hugging Face's, under three TorchServe versions. Large:
about 6 GB are downloaded and kept below ~/.cache/marquee/rehearsal ($MARQUEE_REHEARSAL names another folder).
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.archive.build import BuildConfig, Built, build
from pipeline.archive.regular import is_folder, special_kind
from pipeline.containers.twin import Twin, start_torchserve
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

TARGET = "vertex-pytorch-gpu-2-4"
TABLE_MARK = "<!-- below: written by make rehearse -->"
REQUEST = {"prompt": "a red circle on a blue background", "seed": 1, "output_format": "png"}
PICTURE_DEADLINE_SECONDS = 300
# Other versions of torch round differently; another picture differs by dozens of levels.
LARGEST_MEAN_DIFFERENCE = 2.0


@dataclass(frozen=True)
class Rehearsal:
    """The result of one TorchServe version: seconds from start to the first picture, and its difference."""

    torchserve: str
    seconds: float
    mean_difference: float
    problem: str

    @property
    def is_right(self) -> bool:
        return not self.problem and self.mean_difference <= LARGEST_MEAN_DIFFERENCE


def check(model: Path | None, versions: tuple[str, ...], page: Path | None) -> None:
    """Raises MarqueeError for a value that cannot work, before gigabytes are downloaded."""
    if model is not None and not is_folder(model):
        raise MarqueeError(f"--model {str(model)!r} is not a folder", "name a diffusers folder")
    for version in versions:
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){2}", version, re.ASCII):
            raise MarqueeError(
                f"--torchserve {version[:100]!r} is not a version", "name one such as 0.12.0, digits and dots"
            )
    if page is not None and (special_kind(page) or not is_folder(page.parent)):
        raise MarqueeError(
            f"--report {str(page)!r} is not a file that can be written", "name a Markdown file"
        )


def rehearse(model: Path, versions: tuple[str, ...], twin: Twin) -> tuple[Built, list[Rehearsal]]:
    """Build the archive for the target and serve it under every version in turn."""
    with tempfile.TemporaryDirectory(prefix="marquee-rehearsal-") as name:
        work = Path(name)
        built = build(BuildConfig(str(model), work / "store" / "model.mar", container=TARGET), Silent())
        expected = draw_here(model, built.path)
        found = []
        for version in versions:
            found.append(_serve_once(twin, version, work, expected))
            shutil.rmtree(work / "server", ignore_errors=True)
        return built, found


def draw_here(model: Path, archive: Path) -> Any:
    """The picture that plain diffusers of this environment draws for the request, as an RGB image."""
    import torch
    from diffusers import StableDiffusionPipeline

    from pipeline.archive.inspection import inspect_archive

    defaults = inspect_archive(archive, Silent()).settings["marquee"]["defaults"]
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        REQUEST["prompt"],
        num_inference_steps=defaults["num_inference_steps"],
        guidance_scale=defaults["guidance_scale"],
        width=defaults["width"],
        height=defaults["height"],
        generator=torch.Generator("cpu").manual_seed(int(str(REQUEST["seed"]))),
    ).images[0]


def _serve_once(twin: Twin, version: str, work: Path, expected: Any) -> Rehearsal:
    start = time.monotonic()
    with _server(twin, version, work) as url:
        try:
            picture = _first_picture(url, start)
        except MarqueeError as error:
            return Rehearsal(version, time.monotonic() - start, float("nan"), str(error))
        seconds = time.monotonic() - start
        return Rehearsal(version, seconds, mean_difference(picture, expected), _lazy_problem(url))


@contextmanager
def _server(twin: Twin, version: str, work: Path) -> Iterator[str]:
    process, url = start_torchserve(twin, version, work / "store", work / "server")
    try:
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _lazy_problem(url: str) -> str:
    """Ask once for every scheduler, whose modules the packing may have left out. "" where all answer."""
    import httpx

    describe = httpx.post(f"{url}/predictions/model", json={"instances": [{"describe": True}]}, timeout=120)
    (description,) = describe.json()["predictions"]
    for scheduler in description["schedulers"]:
        body = {"instances": [REQUEST | {"scheduler": scheduler}]}
        response = httpx.post(f"{url}/predictions/model", json=body, timeout=120)
        if response.status_code != 200:
            return f"{scheduler}: {response.status_code} {response.text[:200]}"
    return ""


def _first_picture(url: str, start: float) -> Any:
    """Ask until a picture comes: /ping is 200 long before that, and stays 200 without the packages."""
    import httpx
    from PIL import Image

    answer = "no answer"
    while time.monotonic() - start < PICTURE_DEADLINE_SECONDS:
        try:
            response = httpx.post(f"{url}/predictions/model", json={"instances": [REQUEST]}, timeout=120)
        except httpx.HTTPError as error:
            answer = repr(error)
        else:
            answer = f"{response.status_code} {response.text[:200]}"
            if response.status_code == 200:
                return Image.open(io.BytesIO(base64.b64decode(response.json()["predictions"][0])))
        time.sleep(0.2)
    raise MarqueeError(f"no picture in {PICTURE_DEADLINE_SECONDS} s; the last answer was {answer}")


def mean_difference(picture: Any, expected: Any) -> float:
    """How many of 255 levels two pictures differ by on average; infinite where their sizes do."""
    import numpy as np

    left = np.asarray(picture.convert("RGB"), dtype=float)
    right = np.asarray(expected.convert("RGB"), dtype=float)
    return float(np.abs(left - right).mean()) if left.shape == right.shape else float("inf")


def report(built: Built, found: list[Rehearsal], twin: Twin) -> str:
    """The table of docs/prebuilt-rehearsal.md."""
    lines = [
        f"Run on {time.strftime('%Y-%m-%d')}: {twin.description}, nothing fetched at start, "
        f"`service_envelope=json`. The archive carries {built.packages_files} package files, "
        f"{built.packages_size / 1e6:.0f} MB.",
        "",
        "| TorchServe | first picture after start | picture against plain diffusers here |",
        "|---|---|---|",
    ]
    for one in found:
        verdict = (
            one.problem or f"{'right' if one.is_right else 'WRONG'}, {one.mean_difference:.2f} levels off"
        )
        lines.append(f"| {one.torchserve} | {one.seconds:.1f} s | {verdict} |")
    return "\n".join(lines) + "\n"


def write_page(page: Path, table: str) -> None:
    """Put the table in the place of the last one; the text above it stays. Raises MarqueeError."""
    try:
        head = page.read_text(encoding="utf-8").partition(TABLE_MARK)[0] if page.is_file() else ""
        page.write_text(f"{head}{TABLE_MARK}\n{table}", encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MarqueeError(f"the report cannot be written to {page}: {error}") from error
