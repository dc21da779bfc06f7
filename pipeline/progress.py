"""Progress of long work: a step reports to a Progress, and only the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one piece of work at a time; amounts are bytes."""

    def start(self, label: str, total_bytes: int | None = None) -> None: ...

    def advance(self, amount: int) -> None: ...

    def note(self, text: str) -> None: ...

    def finish(self) -> None: ...


class Silent:
    """A Progress that shows nothing: for callers that are programs."""

    def start(self, label: str, total_bytes: int | None = None) -> None: ...

    def advance(self, amount: int) -> None: ...

    def note(self, text: str) -> None: ...

    def finish(self) -> None: ...
