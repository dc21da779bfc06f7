"""Commands: cloud up, down, status, reset, run, fault set, fault list, fault clear."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import panels
from pipeline.environment import read_environment
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from pipeline.cloud.options import CloudOptions
    from pipeline.cloud.state import CloudFolder, Running

State = Annotated[
    Path | None,
    typer.Option("--state", help="Folder of the cloud [default: $MARQUEE_CLOUD or ~/.marquee/cloud]"),
]
Faults = Annotated[
    list[str] | None, typer.Option("--fault", help="NAME[,target=PATTERN][,count=N][,KEY=NUMBER]")
]
Speed = Annotated[float, typer.Option(min=0.001, help="How many times faster its time passes")]
Date = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Its date [default: today]")]
cloud = typer.Typer(
    help="Cloud Storage and Vertex AI on this machine.", no_args_is_help=True, rich_markup_mode=None
)
fault = typer.Typer(
    help="Set faults, which make calls of the local cloud fail.", no_args_is_help=True, rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    cloud.add_typer(fault, name="fault")
    app.add_typer(cloud, name="cloud", rich_help_panel=panels.CLOUD)


@cloud.command()
def up(
    state: State = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, until Ctrl-C")] = False,
    fault: Faults = None,
    speed: Speed = 1.0,
    date: Date = None,
) -> None:
    """Start the local cloud, unless it runs, and wait until it answers."""
    from pipeline.cloud import process

    folder, options = _folder(state), _options(fault, speed, date)
    if foreground:
        process.serve(folder, options, _show)
    else:
        _show(process.start(folder, options))


@cloud.command()
def down(state: State = None) -> None:
    """Stop the local cloud and every replica; its buckets, models and endpoints are kept."""
    from pipeline.cloud import process

    folder = _folder(state)
    print(f"stopped the local cloud in {folder.path}" if process.stop(folder) else "no local cloud runs")


@cloud.command()
def reset(state: State = None) -> None:
    """Stop the local cloud and delete its buckets, models, endpoints and faults."""
    from pipeline.cloud import process

    folder = _folder(state)
    print(f"emptied {folder.path}" if process.reset(folder) else f"no local cloud is in {folder.path}")


@cloud.command()
def status(
    state: State = None, as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False
) -> None:
    """Show the addresses of the local cloud. Exit code 1 when it does not run."""
    folder = _folder(state)
    running = folder.running()
    if as_json:
        answer = {"running": running is not None, "state": str(folder.path)}
        print(json.dumps({**answer, **(asdict(running) if running else {})}, indent=1))
    elif running:
        _show(running)
    else:
        print(f"no local cloud runs in {folder.path}")
    if running is None:
        raise typer.Exit(1)


@cloud.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    state: State = None,
    fault: Faults = None,
    speed: Speed = 1.0,
    date: Date = None,
) -> None:
    """Run a program that uses Google's SDKs against the local cloud, through its environment: run -- CMD.

    A cloud that does not run is started for the program, and stopped after it.
    """
    from pipeline.cloud import process

    if not context.args:
        raise MarqueeError("no program is given", cure="marquee cloud run -- python their_program.py")
    folder, options = _folder(state), _options(fault, speed, date)
    running = folder.running()
    if running:
        raise typer.Exit(_run(context.args, running))
    try:
        code = _run(context.args, process.start(folder, options))
    finally:
        process.stop(folder)
    raise typer.Exit(code)


def _run(command: list[str], running: Running) -> int:
    """Run the program; its exit code, or 128 plus the number of the signal that ended it, as in a shell."""
    from pipeline.cloud.environment import child_environment

    try:
        program = subprocess.Popen(command, env=child_environment(read_environment().variables, running))
    except OSError as error:
        raise MarqueeError(f"cannot run {command[0]}: {error.strerror}") from None
    while True:
        try:
            code = program.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue  # the program got the signal too, and decides whether to end


@fault.command("set")
def set_fault(
    faults: Annotated[list[str], typer.Argument(help="See fault list")], state: State = None
) -> None:
    """Set a fault: NAME[,target=PATTERN][,count=N|forever][,KEY=NUMBER]."""
    from pipeline.cloud.faults import FaultBook, parse_fault

    folder, wanted = _folder(state), [parse_fault(text) for text in faults]
    folder.make()
    for each in wanted:
        FaultBook(folder.faults).set(each)


@fault.command("list")
def list_faults(state: State = None) -> None:
    """List the known faults, and those that are set."""
    from pipeline.cloud.faults import FAULTS, FaultBook

    for name, kind in FAULTS.items():
        options = "".join(f",{key}={value:g}" for key, value in kind.parameters.items())
        times = f"{kind.count}x" if kind.count else "until cleared"
        print(f"{name + options:32} {kind.does} ({times})")
    for fault in FaultBook(_folder(state).faults).all():
        left = "until cleared" if fault.count is None else f"{fault.count} left"
        target = fault.target if fault.target.isprintable() else ascii(fault.target)
        print(f"set: {fault.name} for {target} {fault.parameters or ''} ({left})")


@fault.command("clear")
def clear_faults(name: Annotated[str | None, typer.Argument()] = None, state: State = None) -> None:
    """Clear the faults of this name, or all."""
    from pipeline.cloud.faults import FaultBook

    book = FaultBook(_folder(state).faults)
    book.clear(name)
    print(f"{len(book.all())} set")


def _folder(state: Path | None) -> CloudFolder:
    from pipeline.cloud.state import CloudFolder

    folder = CloudFolder(state)
    folder.check()
    return folder


def _options(faults: list[str] | None, speed: float, date: datetime | None) -> CloudOptions:
    from pipeline.cloud.options import CloudOptions

    return CloudOptions(speed, date, tuple(faults or []))


def _show(running: Running) -> None:
    rows = {
        "storage": running.storage,
        "vertex (REST)": running.vertex_rest,
        "vertex (gRPC, TLS)": running.vertex_grpc,
        "certificate authority": running.ca_file,
        "process": str(running.pid),
    }
    for name, value in rows.items():
        print(f"{name:22} {value}")
