"""The command line: the only place that prints and exits. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys

import typer

from pipeline.cli import archive, cloud, containers, deploy, doctor, serving
from pipeline.errors import MarqueeError

app = typer.Typer(
    name="marquee",
    help="Stable Diffusion from one model archive to a Vertex AI endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for area in (archive, serving, cloud, deploy, doctor, containers):
    area.register(app)


def main() -> None:
    """Run one command. A MarqueeError becomes one line on stderr, with its cure, and exit code 1."""
    try:
        app()
    except MarqueeError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.cure:
            print(f"  cure: {error.cure}", file=sys.stderr)
        sys.exit(1)
