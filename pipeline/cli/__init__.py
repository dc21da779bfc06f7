"""The command line: the only place that prints and exits. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys

import typer

from pipeline.cli import archive, cloud, containers, deploy, doctor, edge, serving

app = typer.Typer(
    name="marquee",
    help="Stable Diffusion from one model archive to a Vertex AI endpoint.",
    epilog=edge.EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would read markup in names, and colours would be escaped
)
for area in (archive, serving, cloud, deploy, doctor, containers):
    area.register(app)


def main() -> None:
    """Run one command; see ``edge.EXIT_CODES``."""
    sys.exit(edge.run(app, sys.argv[1:]))
