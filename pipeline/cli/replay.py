"""Command: replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import panels
from pipeline.cli.picture_paths import output_paths, save
from pipeline.cli.predict import DEFAULT_URL
from pipeline.errors import MarqueeError
from pipeline.plain_text import one_line

if TYPE_CHECKING:
    from pipeline.client import Client
    from pipeline.client.receipts import Kept
    from pipeline.client.replay import Replay

EXAMPLES = """\b
Examples:
  marquee replay receipt.json
  marquee replay circle.png --mar model.mar
  marquee replay receipt.json --picture photo.jpg --mask mask.png
  marquee replay receipt.json --against circle.png -o again.png

Ends with 0 where every picture is right: the same pixels, bit by bit, or, where the receipt was not drawn in
strict mode or anything differs, within the tolerance of the picture kept with it. Ends with 1 where one is
not right, or cannot be drawn again.

The tolerance: PNG in float32: 99.9 % of the pixels within 1/255. Else PSNR: 48 dB in float16, 34 dB in
bfloat16 and for jpeg and webp.
"""


def register(app: typer.Typer) -> None:
    """Add this file's command to the application."""
    app.command(rich_help_panel=panels.SERVE, epilog=EXAMPLES)(replay)


def replay(
    receipt: Annotated[
        Path, typer.Argument(help="Receipts or a full answer (JSON), or a picture drawn with --metadata.")
    ],
    url: Annotated[str, typer.Option(help="The server that draws again.")] = DEFAULT_URL,
    mar: Annotated[
        Path | None, typer.Option(help="Start a server with this archive, instead of --url.")
    ] = None,
    picture: Annotated[
        list[Path] | None, typer.Option(help="The file that was sent as image; repeatable.")
    ] = None,
    mask: Annotated[
        list[Path] | None, typer.Option(help="The file that was sent as mask_image; repeatable.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="The picture that was kept; once for each receipt, in order.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the picture drawn again.")
    ] = None,
) -> None:
    """Draw the pictures of receipts again, each alone, and compare their pixels.

    Says which of archive, weights, LoRAs, versions, device, profile and mode differ.
    """
    from pipeline.client.receipts import read_receipts
    from pipeline.client.replay import check_sources
    from pipeline.client.replay import replay as draw_again
    from pipeline.client.source_files import read_source

    kept = read_receipts(receipt)
    sources = {
        "image": [read_source("--picture", path) for path in picture or ()],
        "mask_image": [read_source("--mask", path) for path in mask or ()],
    }
    check_sources(kept, sources)
    pictures = _pictures(kept, against or ())
    paths = output_paths(output, len(kept)) if output else []
    with _server(url, mar) as client:
        results = [draw_again(client, one, sources, then) for one, then in zip(kept, pictures, strict=True)]
    if paths:
        save(paths, [one.prediction.data for one in results])
    _tell(kept, results)


def _pictures(kept: Sequence[Kept], against: Sequence[Path]) -> list[bytes | None]:
    """The picture that each receipt's is compared with; None where none is given."""
    from pipeline.client.source_files import read_source

    if against and len(against) != len(kept):
        raise MarqueeError(
            f"--against is given {len(against)} times for {len(kept)} receipts", "give one for each, in order"
        )
    return [read_source("--against", path).data for path in against] or [None] * len(kept)


@contextmanager
def _server(url: str, mar: Path | None) -> Iterator[Client]:
    """A client of the server at ``url``, or of one that serves the archive meanwhile."""
    from pipeline.client import Client

    if mar is None:
        with Client(url) as client:
            yield client
        return
    from pipeline.serving.settings import ServeOptions
    from pipeline.serving.torchserve import start

    server = start(mar, ServeOptions())
    try:
        with Client(server.url) as client:
            yield client
    finally:
        server.stop()


def _tell(kept: Sequence[Kept], results: Sequence[Replay]) -> None:
    """One line for each finding; raises MarqueeError where a picture is not right."""
    for one, result in zip(kept, results, strict=True):
        begin = f"{one.name}: " if len(kept) > 1 else ""
        for difference in result.differences:
            then, now = one_line(difference.then), one_line(difference.now)
            print(f"{begin}{difference.name} differs: then {then}, now {now}")
        if result.same:
            print(f"{begin}the same pixels, bit by bit")
        elif result.closeness is not None:
            print(f"{begin}{result.closeness}")
    wrong = [(one, result) for one, result in zip(kept, results, strict=True) if not result.right]
    if wrong:
        (first, result), many = wrong[0], f"{len(wrong)} of {len(kept)} pictures: " if len(kept) > 1 else ""
        message, cure = _complaint(result)
        raise MarqueeError(f"{many}{first.name if many else ''}{': ' if many else ''}{message}", cure)


def _complaint(result: Replay) -> tuple[str, str]:
    if result.expected:
        return (
            "the pixels differ, and in strict mode on the same software and device they may not",
            "this is a fault of marquee or of the machine: please report it with both receipts",
        )
    why = "see above" if result.differences else "in fast mode the pictures beside it change the last bits"
    if result.closeness is not None:
        return (
            f"the pixels differ by more than the tolerance ({why})",
            "use the same archive, software and device",
        )
    return (
        f"the pixels differ ({why})",
        "compare within a tolerance: --against PICTURE; or draw in strict mode (marquee: strict: true)",
    )
