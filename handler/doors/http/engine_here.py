"""The engine in this process as the drawer of the routes: loads the archive and draws a warm-up picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from handler.contract.job import Job
from handler.contract.problem import Refusal
from handler.contract.request import parse_body
from handler.contract.response import reply
from handler.contract.settings import Settings
from handler.doors.answers import Answers, MakeReply, PendingReply
from handler.doors.http.answer import Answer, of_reply
from handler.doors.http.drawer import Numbers
from handler.doors.seeds import draw_seed
from handler.doors.warm_up import warm_up_instance
from handler.model.libraries import set_library_environment

if TYPE_CHECKING:
    from handler.engine.opening import Opened


class EngineHere:
    """Draws with one engine on one device, in this process."""

    def __init__(self, opened: Opened) -> None:
        self._runner = opened.start()
        self._answers: Answers[Answer] = Answers(self._runner)
        self._settings, self._description = opened.settings, opened.description
        self._warm_up(opened.families)
        # The warm-up is no client's request, so it is not counted.
        self._before = dict(self._runner.engine.metrics.counts)
        self._runner.engine.metrics.drain()

    @property
    def description(self) -> Mapping[str, object]:
        return self._description

    def answer(self, jobs: Sequence[Job], make_answer: MakeReply[Answer]) -> PendingReply[Answer]:
        return self._answers.answer(jobs, make_answer)

    def numbers(self) -> Numbers:
        engine = self._runner.engine
        counts = {name: count - self._before.get(name, 0) for name, count in engine.metrics.counts.items()}
        return Numbers(counts, engine.gauges(), engine.metrics.drain())

    def close(self) -> None:
        self._answers.close()
        self._runner.close()

    def _warm_up(self, families: Sequence[str]) -> None:
        """Draws one small picture; readiness means that this worked. Raises RuntimeError."""
        instance = warm_up_instance(self._settings, families)
        request = parse_body({"instances": [instance]}, self._settings, draw_seed)
        if isinstance(request, Refusal):
            raise RuntimeError(f"the warm-up request is refused: {request.message}")
        most = self._settings.limits.max_response_bytes
        pending = self.answer(
            request.jobs, lambda drawn: of_reply(reply(request, drawn, self._description, most))
        )
        answer = pending.reply.result()
        if answer.status != 200:
            raise RuntimeError(f"the warm-up request failed: {answer.body.decode()}")


def open_here(root: Path, settings: Settings, gpu: int | None) -> EngineHere:
    """Loads the archive unpacked at ``root`` and draws the warm-up picture; ``gpu`` None: the first, if any.

    Raises what ``open_engine`` raises, and RuntimeError where the warm-up picture fails.
    """
    set_library_environment()
    with ThreadPoolExecutor(1, "marquee-load") as loading:
        return EngineHere(loading.submit(partial(_open, root, settings, gpu)).result())


def _open(root: Path, settings: Settings, gpu: int | None) -> Opened:
    # Here, after the archive's own packages and the environment are in place.
    from handler.engine.opening import open_engine

    return open_engine(root, settings, (0 if gpu is None else gpu,))
