"""The engine on SD 1.5's real shapes, in this process and through TorchServe."""

from __future__ import annotations

import statistics
import tempfile
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks import load, sides, traffic
from benchmarks.flops import all_cores, matrix_tflops, picture_tflop, unet_tflop
from benchmarks.ratio import Ratio, alternate
from benchmarks.sd15 import write_random_sd15
from benchmarks.stalls import unstalled

if TYPE_CHECKING:
    from handler.contract.job import Job
    from handler.contract.settings import Settings
    from handler.engine.engine import Engine
    from handler.model.model import Model


@dataclass(frozen=True)
class Scale:
    """One size of the comparison: pixels a side, the engine's dtype, images at once, steps of a picture.

    ``goals`` holds the ratio to reach, by the name of the function that measures it.
    """

    name: str
    pixels: int
    dtype: str
    stock_dtype: str
    device: str
    live: int
    num_inference_steps: int
    goals: dict[str, float]


MID = Scale(
    "mid",
    256,
    "bfloat16",
    "float32",
    "cpu",
    4,
    2,
    {"single_image": 5.5, "through_torchserve": 0.95, "useful_share": 0.65, "cold_start": 8.0},
)
GPU = Scale(
    "SD 1.5 at 512x512",
    512,
    "float16",
    "float16",
    "cuda",
    16,
    30,
    {"single_image": 2.0, "through_torchserve": 0.97, "useful_share": 0.45, "cold_start": 8.0},
)


@dataclass(frozen=True)
class Built:
    """marquee's archive of one scale and the same unpacked, with the seconds that compiling took."""

    mar: Path
    root: Path
    model_folder: Path
    compile_seconds: float


def build_scale(scale: Scale, tokenizer: Path, folder: Path) -> Built:
    """SD 1.5's shapes with random weights, packed with a compiled UNet, and unpacked for this process."""
    from pipeline.archive.build import BuildConfig, build
    from pipeline.progress import Silent

    model_folder = write_random_sd15(folder / "sd15", tokenizer)
    config = folder / f"{scale.device}.yaml"
    config.write_text(yaml.safe_dump(_config(scale)))
    plain, mar = folder / "plain.mar", folder / f"{scale.device}" / "model.mar"
    mar.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    build(BuildConfig(model=str(model_folder), out=plain, config=config), Silent())
    packed = time.perf_counter()
    build(BuildConfig(model=str(model_folder), out=mar, config=config, compiled=True), Silent())
    # The second build packs twice; what is left is loading, exporting and compiling.
    compile_seconds = time.perf_counter() - packed - 2 * (packed - started)
    plain.unlink()
    root = Path(tempfile.mkdtemp(dir=folder))
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(root)
    return Built(mar, root, model_folder, compile_seconds)


def _config(scale: Scale) -> dict[str, Any]:
    return {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 4 * scale.live,
        "maxBatchDelay": 1,
        "continuousBatching": True,
        "responseTimeout": 1200,
        "startupTimeout": 1200,
        "jobQueueSize": 256,
        "marquee": {
            "defaults": {"width": scale.pixels, "height": scale.pixels},
            "device": scale.device,
            "dtype": _fast_dtype(scale),
            "channels_last": True,
            "max_batch": scale.live,
            "max_step_seconds": 600,
        },
    }


def _fast_dtype(scale: Scale) -> str:
    """bf16 pays on a CPU only with AMX: without it this machine multiplies bf16 at half the rate of fp32."""
    import torch

    return scale.dtype if scale.device == "cuda" or torch.cpu._is_amx_tile_supported() else "float32"


def load_engine(root: Path) -> tuple[Engine, Model, Settings]:
    """The engine as the handler starts it on an unpacked archive."""
    import torch

    from handler.contract.settings import load_settings
    from handler.engine.opening import open_engine
    from handler.model.device import cores

    # As in a worker that has just started: an engine made before in this process may have left one thread.
    torch.set_num_threads(cores())
    opened = open_engine(root, load_settings(root / "model-config.yaml"))
    return opened.engine, opened.model, opened.settings


def jobs(scale: Scale, count: int, settings: Settings) -> list[Job]:
    """``count`` jobs with their own prompts and seeds."""
    from handler.contract.job import Job

    bodies = traffic.equal(scale.num_inference_steps)
    asks = [next(bodies)["instances"][0] for _ in range(count)]
    return [Job(**{**vars(settings.defaults), **ask}) for ask in asks]


def draw(engine: Engine, work: Sequence[Job]) -> list[Any]:
    """All jobs through the engine; the outcomes in their order."""
    from handler.engine.ticket import Ticket

    tickets = [engine.submit(job) for job in work]
    outcomes: dict[Any, Any] = {}
    while engine.busy:
        outcomes.update(engine.step())
    return [outcomes[ticket] if isinstance(ticket, Ticket) else ticket for ticket in tickets]


def single_image(
    scale: Scale, built: Built, engine: Engine, model: Model, settings: Settings, rounds: int
) -> Ratio:
    """Seconds of denoising one picture, stock diffusers against the engine."""
    import torch
    from diffusers import StableDiffusionPipeline

    stock = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        built.model_folder, torch_dtype=getattr(torch, scale.stock_dtype), local_files_only=True
    ).to(scale.device)
    stock.set_progress_bar_config(disable=True)
    (job,) = jobs(scale, 1, settings)
    with torch.inference_mode():
        embeddings = stock.encode_prompt(job.prompt, scale.device, 1, True, "")

    def ours(_: int) -> float:
        (picture,) = draw(engine, [job])
        return float(picture.seconds["denoise"])

    def theirs(_: int) -> float:
        started = time.perf_counter()
        with all_cores():
            stock(
                prompt_embeds=embeddings[0],
                negative_prompt_embeds=embeddings[1],
                num_inference_steps=job.num_inference_steps,
                guidance_scale=job.guidance_scale,
                width=scale.pixels,
                height=scale.pixels,
                generator=torch.Generator("cpu").manual_seed(job.seed),
                output_type="latent",
            )
        if scale.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    ours(0), theirs(0)
    mine, other = alternate(ours, theirs, rounds)
    stock_tflops = (scale.num_inference_steps + 1) * unet_tflop(scale.pixels) / statistics.median(other)
    most = matrix_tflops(model) / stock_tflops
    note = f"an engine as fast as this machine multiplies {model.dtype} matrices would reach {most:.2f}"
    if scale.device == "cpu" and not torch.cpu._is_amx_tile_supported():
        note += "; the goal was set for bfloat16 on a processor with AMX, which this one does not have"
    title, name = "lone picture, time to denoise it", f"stock diffusers, {scale.stock_dtype}"
    return Ratio(title, name, "s", mine, other, True, scale.goals["single_image"], note)


def through_torchserve(scale: Scale, built: Built, engine: Engine, settings: Settings, rounds: int) -> Ratio:
    """Pictures per second with PNG replies through TorchServe, against the same engine in this process."""
    count = 2 * scale.live

    def in_process(_: int) -> float:
        from handler.contract.encode import encode

        started = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            pictures = draw(engine, jobs(scale, count, settings))
            list(pool.map(lambda picture: encode(picture.image, "png", 90), pictures))
        return count / (time.perf_counter() - started)

    with sides.torchserve(built.mar, threads=2) as url:

        def served(number: int) -> float:
            bodies = traffic.equal(scale.num_inference_steps, number, "png")
            return load.throughput(load.run_closed(url, bodies, count, count))

        mine, other = alternate(served, in_process, rounds)
    name, goal = "throughput through TorchServe, PNG replies", scale.goals["through_torchserve"]
    return Ratio(name, "the same engine without TorchServe", "pictures/s", mine, other, False, goal)


def useful_share(scale: Scale, engine: Engine, model: Model, settings: Settings, rounds: int) -> Ratio:
    """The TFLOP/s that pictures need, with every place taken, over those of a matrix product."""
    work = jobs(scale, scale.live, settings)
    tflop = scale.live * picture_tflop(scale.pixels, scale.num_inference_steps)

    def ours(_: int) -> float:
        started = time.perf_counter()
        draw(engine, work)
        return tflop / (time.perf_counter() - started)

    mine, other = alternate(ours, lambda _: matrix_tflops(model), rounds)
    return Ratio(
        "arithmetic that pictures need, all places taken",
        "a matrix product",
        "TFLOP/s",
        mine,
        other,
        False,
        scale.goals["useful_share"],
    )


def cold_start(scale: Scale, built: Built, rounds: int) -> Ratio:
    """Seconds until compiled code is ready at a start: compiling it then, against loading it."""
    import torch

    from handler.contract.settings import load_settings
    from handler.engine.accelerate.compiled import CompiledUNet, with_compiled_unet
    from handler.model.device import cores, set_threads
    from handler.model.load import load_model

    def shipped() -> float:
        started = time.perf_counter()
        loaded = with_compiled_unet(model, built.root)
        assert isinstance(loaded.unet, CompiledUNet)
        first = _seconds_of_a_call(loaded, scale)
        second = _seconds_of_a_call(loaded, scale)
        return time.perf_counter() - started - first - second + max(0.0, first - second)

    settings = load_settings(built.root / "model-config.yaml")
    torch.set_num_threads(cores())
    set_threads(settings)
    model = load_model(built.root / "model", settings)
    loads = [unstalled(shipped) for _ in range(rounds)]
    name = "start: time until compiled code is ready"
    compiled = (built.compile_seconds,) * rounds
    note = (
        f"compiled once, as `marquee build --compile` does (which includes loading the model and trying the"
        f" lanes), loaded {rounds} times; loading takes {statistics.median(loads):.1f} s"
    )
    return Ratio(
        name, "compiling at start", "s", tuple(loads), compiled, True, scale.goals["cold_start"], note
    )


def _seconds_of_a_call(model: Model, scale: Scale) -> float:
    import torch

    side = scale.pixels // 8
    sample = torch.zeros(2, 4, side, side, device=model.device, dtype=model.dtype)
    texts = torch.zeros(2, 77, 768, device=model.device, dtype=model.dtype)
    started = time.perf_counter()
    with torch.inference_mode():
        model.unet(
            sample, torch.zeros(2, device=model.device), encoder_hidden_states=texts, return_dict=False
        )
    return time.perf_counter() - started
