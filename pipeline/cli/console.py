"""The progress bar of long work, with bytes and rate."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from pipeline.cli.plain_stream import unescaped_stderr
from pipeline.plain_text import escaped, one_line


class LiveProgress:
    """A ``pipeline.progress.Progress`` drawn on stderr, one bar at a time."""

    def __init__(self) -> None:
        self._console = Console(file=unescaped_stderr())
        self._bar: RichProgress | None = None

    def start(self, label: str, total_bytes: int | None = None) -> None:
        self.finish()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._bar.start()
        self._bar.add_task(escape(one_line(label)), total=total_bytes)

    def advance(self, amount: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], amount)

    def note(self, text: str) -> None:
        self._console.print(escaped(text), highlight=False, markup=False)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
