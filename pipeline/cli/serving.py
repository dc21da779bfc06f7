"""Commands: serve, predict, demo."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import panels
from pipeline.cli.prompts import meant_prompts
from pipeline.cli.serve_http import serve_http
from pipeline.cli.target import Asked, CloudOption, ConfigOption, connected
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from pipeline.client import Prediction
    from pipeline.serving.demo import Demo
    from pipeline.serving.server import RunningServer
    from pipeline.serving.settings import ServeOptions

DEFAULT_URL = "http://127.0.0.1:8080"
EXAMPLE = '{"instances": [{"prompt": "a red circle on a blue background", "seed": 1}]}'
TO_FILE = (
    "import base64, json; "
    'open("picture.jpg", "wb").write(base64.b64decode(json.load(open(0))["predictions"][0]))'
)
DOORS = ("torchserve", "http")
FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command(rich_help_panel=panels.SERVE)(serve)
    app.command(rich_help_panel=panels.SERVE)(predict)
    app.command(rich_help_panel=panels.SERVE)(demo)


def serve(
    mar: Annotated[
        Path | None, typer.Option(help="The archive; model_artifacts/model.mar if not given.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8080,
    management_port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Opens TorchServe's management API; 0: a private socket file."),
    ] = 0,
    bind: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 shows it to the network.")
    ] = "127.0.0.1",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the worker; all cores if not given.")
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long running requests may take at the end.")
    ] = 120,
    door: Annotated[
        str, typer.Option(help="torchserve, or http: no TorchServe and no Java, for many kinds of clients.")
    ] = "torchserve",
) -> None:
    """Serve an archive until Ctrl-C or SIGTERM; running requests finish first."""
    from pipeline.archive.build import DEFAULT_ARCHIVE, repository_root
    from pipeline.serving.settings import ServeOptions

    options = ServeOptions(port=port, management_port=management_port, bind_address=bind, threads=threads)
    if door not in DOORS:
        raise MarqueeError(f"--door {door}: there are {' and '.join(DOORS)}")
    if door == "http" and management_port:
        raise MarqueeError("--management-port is TorchServe's; the HTTP door has none", "leave it out")
    start = _serve if door == "torchserve" else serve_http
    start(mar or repository_root() / DEFAULT_ARCHIVE, options, drain_seconds)


def _serve(mar: Path, options: ServeOptions, drain_seconds: float) -> None:
    from pipeline.serving.torchserve import start
    from pipeline.serving.watching import watch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"starting TorchServe with {mar}", flush=True)
    server = start(mar, options)
    stopping = threading.Event()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        print(_welcome(server), flush=True)
        for sentence in watch(server, stopping):
            print(sentence, flush=True)
        _end(server, drain_seconds)
    finally:
        server.stop()


def _welcome(server: RunningServer) -> str:
    return (
        f"ready at {server.url}   management {server.management_url}   logs {server.logs}\n\n"
        f"  curl -s {server.predict_url} -H 'Content-Type: application/json' \\\n"
        f"    -d '{EXAMPLE}' \\\n"
        f"    | python3 -c '{TO_FILE}'\n\n"
        "Ctrl-C stops it."
    )


def _end(server: RunningServer, drain_seconds: float) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C does not wait
        signal.signal(number, signal.default_int_handler)
    print("stopping: new requests get 503, running ones finish", flush=True)
    if not server.stop(drain_seconds):
        raise MarqueeError(f"some requests were still running after {drain_seconds:g} s and were cut off")
    print("stopped", flush=True)


def predict(
    prompts: Annotated[list[str], typer.Argument(help="What to draw; each prompt is one picture.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the picture; picture.jpg.")
    ] = None,
    url: Annotated[str, typer.Option(help="The server.")] = DEFAULT_URL,
    endpoint: Annotated[str | None, typer.Option(help="Ask this Vertex AI endpoint instead.")] = None,
    config: ConfigOption = None,
    cloud: CloudOption = None,
    seed: Annotated[str | None, typer.Option(help="The same seed draws the same picture.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="PNDM, DDIM, Euler, ...")] = None,
    output_format: Annotated[str | None, typer.Option("--format", help="jpeg, png or webp.")] = None,
    quality: Annotated[int | None, typer.Option(help="Of jpeg and webp, 1 to 100.")] = None,
) -> None:
    """Ask a running server for pictures; several prompts become picture-1.jpg, picture-2.jpg, ..."""
    from pipeline.client import Client
    from pipeline.deploy.smoke import find_client

    prompts = meant_prompts(prompts)
    target = output or _default_output(output_format)
    fields = {
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "negative_prompt": negative,
        "width": width,
        "height": height,
        "scheduler": scheduler,
        "output_format": _picture_format(target, output_format),
        "quality": quality,
    }
    paths = _output_paths(target, len(prompts))
    if endpoint is None:
        with Client(url) as client:
            predictions = client.predict(prompts, _given(fields))
    else:
        asked = Asked(config, cloud, settings=[f"endpoint={endpoint}"])
        with connected(asked) as (wanted, connection):
            predictions = find_client(connection, wanted.endpoint).predict(prompts, _given(fields))
    _save(paths, predictions)
    _print_pictures(paths, predictions)


def _print_pictures(paths: list[Path], predictions: list[Prediction]) -> None:
    for path, prediction in zip(paths, predictions, strict=True):
        size = f"{prediction.width}x{prediction.height} {prediction.format}, {len(prediction.data):,} bytes"
        print(f"{path}  {size}, seed {prediction.seed}")
        for warning in prediction.warnings:
            print(f"warning: {path}: {warning}", file=sys.stderr)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _default_output(wanted: str | None) -> Path:
    for suffix, name in FORMATS.items():
        if name == (wanted or "jpeg"):
            return Path(f"picture{suffix}")
    raise MarqueeError(f"--format {wanted}: pictures are jpeg, png or webp")


def _picture_format(output: Path, wanted: str | None) -> str | None:
    """What to ask the server for, so that the file's name tells the truth."""
    named = FORMATS.get(output.suffix.lower())
    if output.suffix and named is None:
        raise MarqueeError(f"-o {output}: pictures are written as {', '.join(FORMATS)}")
    if wanted is not None and named is not None and wanted != named:
        raise MarqueeError(
            f"--format {wanted} does not fit -o {output}", f"leave --format out, or rename {output}"
        )
    return wanted or named


def _output_paths(output: Path, count: int) -> list[Path]:
    """Where each picture goes: checked, for one that took minutes must not be lost for want of a place."""
    if output.is_dir():
        raise MarqueeError(f"-o {output} is a folder", f"name a file in it: -o {output / 'picture.jpg'}")
    if not output.parent.is_dir():
        raise MarqueeError(f"-o {output}: there is no folder {output.parent}", f"mkdir -p {output.parent}")
    numbers = [""] if count == 1 else [f"-{number}" for number in range(1, count + 1)]
    paths = [output.with_name(f"{output.stem}{number}{output.suffix}") for number in numbers]
    for path in paths:
        _check_output(path)
    return paths


def _check_output(path: Path) -> None:
    try:
        if path.exists():
            writable = os.access(path, os.W_OK)
        else:  # a read-only disk shows only when something is written
            with tempfile.TemporaryFile(dir=path.parent):
                writable = True
    except OSError as error:
        raise _unwritable(path, error) from error
    if not writable:
        raise MarqueeError(f"-o {path} is there and may not be overwritten", "name another file")


def _save(paths: list[Path], predictions: list[Prediction]) -> None:
    """All pictures, or none where one cannot be written."""
    from pipeline.client.picture_files import save_pictures

    try:
        save_pictures([(path, each.data) for path, each in zip(paths, predictions, strict=True)])
    except OSError as error:
        raise _unwritable(paths[0] if len(paths) == 1 else paths[0].parent, error) from error


def _unwritable(path: Path, error: OSError) -> MarqueeError:
    return MarqueeError(f"-o {path} cannot be written: {error.strerror}", "name another place with -o")


def demo() -> None:
    """Build, serve, draw eight pictures, check what they show, write out/demo.png and stop."""
    from pipeline.archive.build import repository_root
    from pipeline.cli.console import LiveProgress
    from pipeline.serving.demo import run_demo

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    done = run_demo(repository_root(), LiveProgress())
    _print_timeline(done)
    if not done.right:
        wrong = [
            f"{shot.caption} (seed {shot.seed}): {shot.verdict}" for shot in done.shots if not shot.right
        ]
        raise MarqueeError("\n".join([f"{len(wrong)} of {len(done.shots)} pictures are wrong", *wrong]))
    print(f"all {len(done.shots)} pictures are right; they are in {done.sheet}")


def _print_timeline(done: Demo) -> None:
    print(f"{'at':>9}  {'took':>9}  step")
    for moment in done.moments:
        print(f"{moment.began:7.2f} s  {moment.took:7.2f} s  {moment.label}")
