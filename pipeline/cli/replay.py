"""Command: replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import panels
from pipeline.cli.predict import DEFAULT_URL
from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    from pipeline.client.replay import Replay


def register(app: typer.Typer) -> None:
    """Add this file's command to the application."""
    app.command(rich_help_panel=panels.SERVE)(replay)


def replay(
    receipt: Annotated[Path, typer.Argument(help="A receipt, or an answer that holds one (JSON).")],
    url: Annotated[str, typer.Option(help="The server that draws again.")] = DEFAULT_URL,
    mar: Annotated[Path | None, typer.Option(help="Serve this archive for it, instead of --url.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the picture drawn again.")
    ] = None,
) -> None:
    """Draw the picture of a receipt again and compare its pixels, bit by bit.

    Ends with 0 where they are the same and with 1 where they differ; says which of archive, weights,
    versions, device and mode differ.
    """
    from pipeline.client import Client
    from pipeline.client.replay import read_receipt
    from pipeline.client.replay import replay as draw_again

    wanted = read_receipt(receipt)
    if mar is None:
        with Client(url) as client:
            result = draw_again(client, wanted)
    else:
        from pipeline.serving.settings import ServeOptions
        from pipeline.serving.torchserve import start

        server = start(mar, ServeOptions())
        try:
            with Client(server.url) as client:
                result = draw_again(client, wanted)
        finally:
            server.stop()
    if output is not None:
        result.prediction.save(output)
    _print(result)


def _print(result: Replay) -> None:
    for difference in result.differences:
        print(f"{difference.name} differs: then {difference.then}, now {difference.now}")
    if result.same:
        print("the same pixels, bit by bit")
        return
    if result.expected:
        raise MarqueeError(
            "the pixels differ, and in strict mode on the same software and device they may not",
            "this is a fault of marquee or of the machine: please report it with both receipts",
        )
    why = "see above" if result.differences else "fast mode: company changes the last bits"
    raise MarqueeError(
        f"the pixels differ ({why})",
        "for equal bits use strict mode (marquee: strict: true) and the same archive, software and device",
    )
