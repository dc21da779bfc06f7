"""Command: predict."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import panels
from pipeline.cli.option_groups import grouped
from pipeline.cli.picture_fields import PictureFields
from pipeline.cli.picture_paths import check_output, default_output, format_for, output_paths, save
from pipeline.cli.prompts import meant_prompts
from pipeline.cli.target import CloudOption, ConfigOption, DeployOptions, connected
from pipeline.cli.withheld import end_if_withheld, that_came

if TYPE_CHECKING:
    from pipeline.client import Prediction

DEFAULT_URL = "http://127.0.0.1:8080"
EXAMPLES = """\b
Examples:
  marquee predict "a red circle on a blue background" -o circle.png --seed 1
  marquee predict "a green star" --images 4 --preset fast -o star.png
  marquee predict "a green star" --image star-1.png --strength 0.6 -o changed.png
  marquee predict "a star" --image photo.jpg --mask-image mask.png -o painted.png
  marquee predict "a red circle" --lora outline:0.8 --lora stripes -o styled.png
  marquee predict "a red circle" --metadata --receipt receipt.json -o circle.png
"""


@dataclass(frozen=True)
class Server:
    """The server or the endpoint that is asked."""

    url: Annotated[str, typer.Option(help="The server.")] = DEFAULT_URL
    endpoint: Annotated[str | None, typer.Option(help="Ask this Vertex AI endpoint instead.")] = None
    config: ConfigOption = None
    cloud: CloudOption = None

    def predict(self, prompts: Sequence[str], parameters: dict[str, Any]) -> list[Prediction]:
        """The pictures of all prompts, in order."""
        from pipeline.client import Client
        from pipeline.deploy.smoke import find_client

        if self.endpoint is None:
            with Client(self.url) as client:
                return client.predict(prompts, parameters)
        options = DeployOptions(self.config, self.cloud, settings=[f"endpoint={self.endpoint}"])
        with connected(options) as (wanted, connection):
            return find_client(connection, wanted.endpoint).predict(prompts, parameters)


def register(app: typer.Typer) -> None:
    """Add this file's command to the application."""
    app.command(rich_help_panel=panels.SERVE, epilog=EXAMPLES)(predict)


@grouped(server=Server, fields=PictureFields)
def predict(
    prompts: Annotated[list[str], typer.Argument(help="What to draw; each prompt is one picture.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the picture; picture.jpg.")
    ] = None,
    receipt: Annotated[
        Path | None, typer.Option(help="Where to write the receipts, for marquee replay.")
    ] = None,
    *,
    server: Server,
    fields: PictureFields,
) -> None:
    """Ask a running server for pictures; several become picture-1.jpg, picture-2.jpg, ..."""
    prompts = meant_prompts(prompts)
    target = output or default_output(fields.output_format)
    parameters = fields.parameters()
    if (format_name := format_for(target, fields.output_format)) is not None:
        parameters["output_format"] = format_name
    paths = output_paths(target, len(prompts) * (fields.num_images_per_prompt or 1))
    if receipt is not None:
        check_output("--receipt", receipt)
        parameters["response"] = "full"
    predictions = server.predict(prompts, parameters)
    came_paths, came = that_came(paths, predictions)
    files = [each.data for each in came]
    if receipt is not None:
        save([*came_paths, receipt], [*files, _receipts(predictions)])
    else:
        save(came_paths, files)
    _print_pictures(came_paths, came)
    end_if_withheld(paths, predictions)


def _receipts(predictions: Sequence[Prediction]) -> bytes:
    """The receipt, or a list of several, as ``marquee replay`` reads it."""
    receipts = [each.receipt for each in predictions]
    return json.dumps(receipts[0] if len(receipts) == 1 else receipts, indent=2).encode() + b"\n"


def _print_pictures(paths: list[Path], predictions: list[Prediction]) -> None:
    for path, prediction in zip(paths, predictions, strict=True):
        size = f"{prediction.width}x{prediction.height} {prediction.format}, {len(prediction.data):,} bytes"
        print(f"{path}  {size}, seed {prediction.seed}")
        for warning in prediction.warnings:
            print(f"warning: {path}: {warning}", file=sys.stderr)
