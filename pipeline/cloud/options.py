"""The options of a cloud, checked by the command: the detached server's errors would be in a log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.cloud.faults import parse_fault
from pipeline.errors import MarqueeError


@dataclass(frozen=True)
class CloudOptions:
    """How a cloud runs: ``speed`` times as fast as time, from ``date`` (today) on, with these faults.

    ``speed`` is 0.001 to 100000 and the date's year 2000 to 2999; raises MarqueeError for others.
    """

    speed: float = 1.0
    date: datetime | None = None
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.001 <= self.speed <= 1e5:  # nan is not
            raise MarqueeError(f"--speed is {self.speed:g}", cure="a number from 0.001 to 100000")
        if self.date and not 2000 <= self.date.year <= 2999:
            raise MarqueeError(
                f"--date is {self.date.date().isoformat()}", cure="a day of the years 2000 to 2999"
            )
        for text in self.faults:
            parse_fault(text)

    def arguments(self) -> list[str]:
        """The same, for the command line of another process."""
        date = ["--date", self.date.date().isoformat()] if self.date else []
        faults = [word for fault in self.faults for word in ("--fault", fault)]
        return ["--speed", str(self.speed), *date, *faults]
