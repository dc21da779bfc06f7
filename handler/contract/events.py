"""What happens to a picture while it is drawn: one vocabulary of events for every door.

The engine tells the events of one picture (``handler.contract.drawing``). A door sends each as the JSON
object that ``event_body`` makes, with the picture's position in its request. docs/events.md has the table,
and docs/events.schema.json is made of this file. Torch-free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Union

from handler.contract.job import Failure
from handler.contract.request import Item, Pictures

PREVIEW_FORMAT = "jpeg"


def _told(description: str, **schema: Any) -> Any:
    """A field of an event; ``schema`` is what its JSON Schema says beside its type."""
    return dataclasses.field(metadata={"description": description, **schema})


@dataclass(frozen=True)
class Queued:
    """The picture waits for its turn. Told when it is queued, and again when its place changes.

    Between two steps of the engine it is told once at most.
    """

    name: ClassVar[str] = "queued"
    place: int = _told("Place in the queue; 1 is next.", minimum=1)
    seconds: float = _told("Seconds it has waited.", minimum=0)
    seconds_left: float = _told("Estimated seconds it still has to wait; 0: not known.", minimum=0)


@dataclass(frozen=True)
class Started:
    """The picture has its place among those that are drawn. Told once."""

    name: ClassVar[str] = "started"
    steps: int = _told("Denoising steps it takes; PNDM takes one more than asked for.", minimum=1)
    seconds: float = _told("Seconds it has waited.", minimum=0)


@dataclass(frozen=True)
class Step:
    """A denoising step is done. Told after every step, 1 to ``steps``."""

    name: ClassVar[str] = "step"
    step: int = _told("Denoising steps done.", minimum=1)
    steps: int = _told("Denoising steps it takes.", minimum=1)
    seconds: float = _told("Seconds since it started.", minimum=0)
    seconds_left: float = _told("Estimated seconds to its last step, at its own pace so far.", minimum=0)


@dataclass(frozen=True)
class Preview:
    """How the finished picture would look, predicted in one of its steps.

    It comes when it is decoded, which may be some steps later. One that cannot be decoded in time is left
    out, and so is its number.
    """

    name: ClassVar[str] = "preview"
    preview: int = _told("Which preview it is, 1 to previews.", minimum=1)
    previews: int = _told("How many there are at most.", minimum=1)
    step: int = _told("The step that predicted it.", minimum=1)
    format: str = _told("The kind of file.", const=PREVIEW_FORMAT)
    image: str = _told(
        "The file as base64; its longer side has at most 256 pixels.", contentEncoding="base64"
    )


@dataclass(frozen=True)
class Done:
    """The picture is drawn; it comes with the answer. Told once, as the last event of the picture."""

    name: ClassVar[str] = "done"
    seconds: float = _told("Seconds since it was queued.", minimum=0)


@dataclass(frozen=True)
class Failed:
    """There will be no picture. Told once, as the last event of the picture.

    A picture that is cancelled tells nothing any more.
    """

    name: ClassVar[str] = "failed"
    status: int = _told("The HTTP status of this failure.", minimum=400, maximum=599)
    code: str = _told("A stable word for it in snake_case.")
    message: str = _told("A sentence for the caller.")


Event = Union[Queued, Started, Step, Preview, Done, Failed]

EVENTS: tuple[type[Any], ...] = (Queued, Started, Step, Preview, Done, Failed)


def failed(failure: Failure) -> Failed:
    """The event of a failure."""
    return Failed(failure.status, failure.code, failure.message)


class Position(NamedTuple):
    """Which picture of a request is meant: the index of its instance and its index in that, both from 0."""

    instance: int
    picture: int


def positions(items: Sequence[Item]) -> list[Position]:
    """Of each job in ``Request.jobs``, in their order."""
    return [
        Position(instance, picture)
        for instance, item in enumerate(items)
        if isinstance(item, Pictures)
        for picture in range(len(item.jobs))
    ]


def event_body(event: Event, position: Position) -> dict[str, Any]:
    """The event's JSON object, such as {"event": "started", "instance": 0, "picture": 0, "steps": 25, ...}.

    Seconds have three digits after the point.
    """
    fields = dataclasses.asdict(event)
    values = {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}
    return {"event": event.name, **position._asdict(), **values}
