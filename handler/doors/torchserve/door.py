"""TorchServe's door, and the edge where every exception ends.

TorchServe answers an exception, a short list or an oversized reply by failing every request of the batch, so
nothing but a full list of small enough texts ever leaves ``handle``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Union

from handler.contract.events import positions
from handler.contract.job import Outcome
from handler.contract.problem import Problem, Refusal, invalid_request
from handler.contract.request import Describe, Request, parse_row
from handler.contract.response import Reply, refuse, reply, to_json
from handler.contract.settings import Settings, load_settings
from handler.doors.refusals import DRAINING, INTERNAL
from handler.doors.seeds import draw_seed
from handler.doors.torchserve.context import Context
from handler.doors.torchserve.continuous import Arrival, ContinuousBatches, sends_calls
from handler.doors.torchserve.drain import Gate
from handler.doors.torchserve.envelope import are_instances, in_band
from handler.doors.torchserve.event_lines import ROOM, EventLines
from handler.doors.torchserve.guard import guarded
from handler.doors.torchserve.metrics import Publisher
from handler.doors.torchserve.request_book import RequestBook
from handler.doors.torchserve.sending import send, send_chunks
from handler.doors.warm_up import warm_up_instance
from handler.model.libraries import set_library_environment

logger = logging.getLogger(__name__)

NO_STREAM = "stream: this server sends every answer whole, because its archive does not batch continuously"
NO_STREAM_CURE = (
    "leave stream out; an archive built with --container marquee (continuousBatching: true) can stream"
)

# What a request is once it has been read: to be drawn, refused, or answered already.
Parsed = Union[Request, Refusal, Reply]


class Door:
    """Loads the archive's model and answers TorchServe's batches."""

    _book: RequestBook[Reply]
    _batches: ContinuousBatches[Reply] | None = None
    _publisher: Publisher | None = None
    _description: Mapping[str, object]
    _families: Sequence[str]

    def __init__(self) -> None:
        self._settings = Settings()
        self._gate = Gate(os.environ.get("MARQUEE_DRAIN_FILE"))

    def initialize(self, context: Context) -> None:
        """Load and warm up; raises RuntimeError, which TorchServe takes for a failed load."""
        properties = context.system_properties
        try:
            with ThreadPoolExecutor(1, "marquee-load") as loading:
                loading.submit(self._load, Path(properties["model_dir"]), properties.get("gpu_id")).result()
            self._warm_up()
            self._publisher = Publisher(self._book.engine, context.metrics, context.model_name)
        except Exception as error:
            message = f"marquee cannot serve this archive: {type(error).__name__}: {error}"
            logger.error(message)
            raise RuntimeError(message) from error
        logger.info("marquee is ready on %s in %s", self._description["device"], self._description["dtype"])

    def handle(self, data: Sequence[object] | None, context: Context) -> list[object]:
        """Answer a batch, or one iteration of it: exactly one entry per row of ``data``, whatever happens."""
        rows = list(data or [])
        answers = guarded(
            f"answering {len(rows)} requests",
            lambda: self._answer_batch(rows, context),
            lambda: self._give_up(rows, context),
        )
        guarded("publishing metrics", self._publish, self._publish_no_more)
        return answers

    def _publish(self) -> None:
        if self._publisher is not None:
            self._publisher.publish()

    def _publish_no_more(self) -> None:
        self._publisher = None

    def _answer_batch(self, rows: Sequence[object], context: Context) -> list[object]:
        if self._batches is not None:
            return self._iterate(self._batches, rows, context)
        if are_instances(rows, context):
            instances = [self._parse({"instances": [row]}) for row in rows]
            return in_band(self._draw(instances), self._settings.limits.max_response_bytes)
        requests = [self._parse_request(row, context, index) for index, row in enumerate(rows)]
        return [send(context, index, one) for index, one in enumerate(self._draw(requests))]

    def _give_up(self, rows: Sequence[object], context: Context) -> list[object]:
        """An error for every row, with its status where the context, which may be what failed, allows it."""
        return guarded(
            f"giving up on {len(rows)} requests",
            lambda: self._refuse_batch(rows, context),
            lambda: [refuse(INTERNAL).text for _ in rows],
        )

    def _refuse_batch(self, rows: Sequence[object], context: Context) -> list[object]:
        if self._batches is not None:
            chunks = self._batches.abandon(_names(rows, context), refuse(INTERNAL))
            return send_chunks(context, chunks)
        self._book.abandon()
        replies = [refuse(INTERNAL) for _ in rows]
        if are_instances(rows, context):
            return in_band(replies, self._settings.limits.max_response_bytes)
        return [send(context, index, one) for index, one in enumerate(replies)]

    def _iterate(
        self, batches: ContinuousBatches[Reply], rows: Sequence[object], context: Context
    ) -> list[object]:
        """Continuous batching: draw for a moment, then send each request what there is for it."""

        def read(index: int) -> Arrival[Reply] | Reply:
            request = self._parse_request(rows[index], context, index)
            if isinstance(request, Request):
                lines = EventLines(positions(request.items)) if request.stream else None
                return Arrival(request.jobs, partial(self._reply, request), lines)
            return self._reply(request, ())

        return send_chunks(context, batches.iterate(_names(rows, context), read))

    def _load(self, root: Path, gpu_id: int | None) -> None:
        set_library_environment()
        # Here, after the archive's own packages and the environment are in place.
        from handler.engine.opening import open_engine

        settings = load_settings(root / "model-config.yaml")
        opened = open_engine(root, settings, () if gpu_id is None else (gpu_id,))
        self._settings, self._description = settings, opened.description
        self._families = opened.families
        self._book = RequestBook(opened.start())
        if settings.continuous_batching and sends_calls():
            self._batches = ContinuousBatches(self._book)
        self._description = {**opened.description, "stream": self._batches is not None}

    def _warm_up(self) -> None:
        """Answer one small request of our own; readiness means that this worked."""
        instance = warm_up_instance(self._settings, self._families)
        (answer,) = self._draw([self._parse({"instances": [instance]})])
        if answer.status != 200:
            raise RuntimeError(f"the warm-up request failed: {answer.text}")

    def _parse_request(self, row: object, context: Context, index: int) -> Parsed:
        if self._gate.asks_to_close(row):
            # Its answer leaves with its batch's, after every request that came before it.
            return Reply(200, to_json(self._gate.close(running=len(self._book.open_requests))))
        if self._gate.is_closed():
            return DRAINING
        # GET /models/model?customized=true comes as a batch of one with this header (ts BaseHandler.handle).
        if str(context.get_request_header(index, "describe")).lower() == "true":
            return Request((Describe(),), bare=True)
        return self._parse(row)

    def _parse(self, row: object) -> Request | Refusal:
        request: Request | Refusal = guarded(
            "parsing a request", lambda: parse_row(row, self._settings, draw_seed), lambda: INTERNAL
        )
        if isinstance(request, Request) and request.stream and self._batches is None:
            message = f"{NO_STREAM}: {NO_STREAM_CURE}"
            return invalid_request([Problem(None, "stream", True, "false", message)])
        return request

    def _draw(self, requests: Sequence[Parsed]) -> list[Reply]:
        """Draw all requests' jobs together, then reply to each its own."""
        for index, request in enumerate(requests):
            jobs = request.jobs if isinstance(request, Request) else ()
            self._book.admit(str(index), jobs, partial(self._reply, request))
        answers = self._book.finish_all(self._settings.max_batch_seconds)
        return [answers[str(index)] for index in range(len(requests))]

    def _reply(self, request: Parsed, outcomes: Sequence[Outcome | None]) -> Reply:
        if isinstance(request, Reply):
            return request
        if isinstance(request, Refusal):
            return refuse(request)
        most = self._settings.limits.max_response_bytes
        if request.stream:
            most = max(most // 2, most - ROOM)
        return guarded(
            "replying to a request",
            lambda: reply(request, outcomes, self._description, most),
            lambda: refuse(INTERNAL),
        )


def _names(rows: Sequence[object], context: Context) -> list[str]:
    assert context.request_ids is not None
    return [context.request_ids[index] for index in range(len(rows))]
