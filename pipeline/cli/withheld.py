"""Pictures that the server's safety checker has flagged and that are not sent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.client import Prediction


def that_came(
    paths: Sequence[Path], predictions: Sequence[Prediction]
) -> tuple[list[Path], list[Prediction]]:
    """The pictures that are there, with their paths."""
    came = [(path, each) for path, each in zip(paths, predictions, strict=True) if not each.withheld]
    return [path for path, _ in came], [each for _, each in came]


def end_if_withheld(paths: Sequence[Path], predictions: Sequence[Prediction]) -> None:
    """Names each withheld picture on stderr and ends with an exit code of its own, where there is one."""
    from pipeline.cli.edge import WITHHELD
    from pipeline.client.errors import PictureWithheld

    withheld = [path for path, each in zip(paths, predictions, strict=True) if each.withheld]
    for path in withheld:
        error = PictureWithheld(str(path))
        print(f"error: {error}; nothing is written there\n  cure: {error.cure}", file=sys.stderr)
    if withheld:
        sys.exit(WITHHELD)
