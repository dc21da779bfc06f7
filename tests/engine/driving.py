"""Running an engine to the end, and comparing pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch

from handler.contract.job import Failure, Job, Outcome, Picture
from handler.engine.engine import Engine
from handler.engine.ticket import Ticket


def submit(engine: Engine, job: Job) -> Ticket:
    ticket = engine.submit(job)
    assert isinstance(ticket, Ticket), ticket
    return ticket


def draw(engine: Engine, jobs: Sequence[Job]) -> list[Outcome]:
    """Submits all at once and steps until all are finished; outcomes in the jobs' order."""
    tickets = [submit(engine, job) for job in jobs]
    outcomes: dict[Ticket, Outcome] = {}
    while engine.busy:
        outcomes.update(engine.step())
    return [outcomes[ticket] for ticket in tickets]


def pixels(outcome: Outcome | None) -> torch.Tensor:
    """(height, width, 3) uint8 of a picture; fails on a Failure."""
    assert isinstance(outcome, Picture), outcome
    return torch.from_numpy(numpy.asarray(outcome.image).copy())


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure), outcome
    return outcome.code


def nearly_equal(drawn: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within 1/255 on at least 99.9 % of pixels: what fp32 promises in company."""
    if drawn.shape != wanted.shape:
        return False
    distance = (drawn.int() - wanted.int()).abs().amax(dim=-1)
    return bool((distance <= 1).float().mean() >= 0.999)
