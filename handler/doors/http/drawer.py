"""The interface between the routes and the engine that draws, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional, Protocol

from handler.contract.job import Job
from handler.doors.answers import MakeReply, PendingReply
from handler.doors.http.answer import Answer


@dataclass(frozen=True)
class Numbers:
    """Counts since the start, gauges of now, and the seconds that were measured since last asked."""

    counts: Mapping[str, int] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    seconds: Sequence[tuple[str, float]] = ()


class Drawer(Protocol):
    """Draws the jobs of a request together. For any thread."""

    @property
    def description(self) -> Mapping[str, object]:
        """The answer to {"describe": true}, and the source of every receipt."""

    def answer(self, jobs: Sequence[Job], make_answer: MakeReply[Answer]) -> PendingReply[Answer]:
        """Starts a request; waits for no step. Where one job is refused, none is drawn."""

    def numbers(self) -> Numbers:
        """The engine's own numbers, under the engine's own names."""

    def close(self) -> None:
        """Ends the drawer's threads, after the step that runs."""


OptionalDrawer = Optional[Drawer]
"""None while the archive is being loaded."""
