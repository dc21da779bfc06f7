"""The command line: the only place that prints and exits. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from pipeline.cli import archive, cloud, containers, deploy, doctor, edge, panels, predict, replay, serving

app = typer.Typer(
    name="marquee",
    cls=panels.PanelGroup,
    help="Stable Diffusion from one model archive to a Vertex AI endpoint.",
    epilog=edge.EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would read markup in names, and colours would be escaped
)
for area in (archive, serving, predict, replay, cloud, deploy, doctor, containers):
    area.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"marquee {version('marquee')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Stable Diffusion from one model archive to a Vertex AI endpoint."""


def main() -> None:
    """Run one command; see ``edge.EXIT_CODES``."""
    sys.exit(edge.run(app, sys.argv[1:]))
