"""Commands: serve, demo."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import panels
from pipeline.cli.serve_http import check_door, serve_http
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from pipeline.serving.demo import Demo
    from pipeline.serving.server import RunningServer
    from pipeline.serving.settings import ServeOptions

EXAMPLE = '{"instances": [{"prompt": "a red circle on a blue background", "seed": 1}]}'
TO_FILE = (
    "import base64, json; "
    'open("picture.jpg", "wb").write(base64.b64decode(json.load(open(0))["predictions"][0]))'
)


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command(rich_help_panel=panels.SERVE)(serve)
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
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")
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
    check_door(door, management_port)
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
