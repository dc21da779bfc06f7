"""A drawer without a model, behind the real application: a picture is one colour, made of its seed.

It draws a picture in ten steps of ``step_seconds`` each, and counts the steps that it has drawn.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from PIL import Image

from handler.contract.drawing import Drawing
from handler.contract.job import Failure, Job, Outcome, Picture
from handler.contract.limits import Defaults, Limits
from handler.contract.settings import Settings
from handler.doors.answers import Answers, MakeReply, PendingReply
from handler.doors.http.answer import Answer
from handler.doors.http.application import make_application
from handler.doors.http.desk import Desk
from handler.doors.http.drawer import Numbers
from handler.doors.http.guards import Guards, read_guards
from handler.doors.http.serve import Server, listen

STEPS = 10
SETTINGS = Settings(
    defaults=Defaults(width=64, height=64, num_inference_steps=15),
    limits=Limits(max_request_bytes=200_000),
)


def colour(seed: int) -> tuple[int, int, int]:
    """The colour of the picture with this seed."""
    red, green, blue = hashlib.sha256(str(seed).encode()).digest()[:3]
    return red, green, blue


@dataclass
class FlatColours:
    """Draws in threads of its own. ``full``: every job is refused with a 429."""

    step_seconds: float = 0.0
    full: bool = False
    steps: int = 0
    seeds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._answers: Answers[Answer] = Answers(self)

    @property
    def description(self) -> Mapping[str, object]:
        return {"versions": {"marquee": "0"}, "device": "none"}

    def answer(self, jobs: Sequence[Job], make_answer: MakeReply[Answer]) -> PendingReply[Answer]:
        return self._answers.answer(jobs, make_answer)

    def numbers(self) -> Numbers:
        return Numbers({"steps": self.steps}, {"live_images": 0})

    def close(self) -> None:
        self._answers.close()

    def check(self, job: Job) -> Failure | None:
        return None

    def draw(self, job: Job, on_progress: object = None) -> Drawing:
        outcome: Future[Outcome] = Future()
        self.seeds.append(job.seed)
        if self.full:
            outcome.set_result(Failure(429, "queue_full", "the queue is full", 1))
            return Drawing(outcome, refused=True)
        threading.Thread(target=self._draw, args=(job, outcome), daemon=True).start()
        return Drawing(outcome)

    def _draw(self, job: Job, outcome: Future[Outcome]) -> None:
        for _ in range(STEPS):
            time.sleep(self.step_seconds)
            if outcome.cancelled():
                outcome.set_running_or_notify_cancel()
                return
            self.steps += 1
        if outcome.set_running_or_notify_cancel():
            picture = Image.new("RGB", (job.width, job.height), colour(job.seed))
            outcome.set_result(Picture(picture, {"queue": 0.0, "denoise": 0.0, "decode": 0.0}))


@dataclass(frozen=True)
class Running:
    """A door that is served; ``url`` without a slash at its end."""

    url: str
    port: int
    desk: Desk
    drawer: FlatColours


@contextmanager
def serving(
    environment: Mapping[str, str] | None = None, guards: Guards | None = None, settings: Settings = SETTINGS
) -> Iterator[Running]:
    """The application on a free port of this machine."""
    desk, drawer = Desk(settings), FlatColours()
    desk.drawer = drawer
    given = environment or {}
    application = make_application(desk, guards or read_guards(given, "127.0.0.1"), given)
    listener = listen("127.0.0.1", 0)
    server = Server(uvicorn.Config(application, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", port, desk, drawer)
    finally:
        server.should_exit = True
        thread.join(20)
        desk.close()
        listener.close()
