"""TorchServe's door, and the edge where every exception ends.

TorchServe answers an exception, a short list or an oversized reply by failing every request of the batch, so
nothing but a full list of small enough texts ever leaves ``handle``.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Union

from handler.digest import archive_digest
from handler.drain import DRAINING, Gate
from handler.engine.carrier import Carrier
from handler.engine.continuous import Arrival, Iterations, Part
from handler.engine.watchdog import Watchdog
from handler.envelope import are_instances, in_band, own_envelopes
from handler.job import Job, Outcome
from handler.problem import Refusal
from handler.request import Describe, Request, parse_row
from handler.response import Reply, refuse, reply, to_json
from handler.settings import Settings, load_settings
from handler.torchserve_metrics import Publisher

logger = logging.getLogger(__name__)

INTERNAL = Refusal(500, "internal", "the server failed on this request; its log says why")

# Read by the libraries when they are first imported: nothing is fetched, and no progress bars.
LIBRARY_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}

# Every answer is a JSON object, so this is how each begins.
OPENING = "{"

# What a request is once it has been read: to be drawn, refused, or answered already.
Parsed = Union[Request, Refusal, Reply]


# The loader binds an envelope right after it has imported the handler, so this runs at import.
own_envelopes()


class Door:
    """Loads the archive's model and answers TorchServe's batches."""

    def __init__(self) -> None:
        self._settings = Settings()
        self._carrier: Any = None
        self._iterations: Any = None
        self._publisher: Any = None
        self._description: dict[str, Any] = {}
        self._gate = Gate(os.environ.get("MARQUEE_DRAIN_FILE"))

    def initialize(self, context: Any) -> None:
        """Load and warm up; raises RuntimeError, a failed load to TorchServe, that says what is wrong."""
        properties = context.system_properties
        try:
            # OpenMP keeps helpers for each thread that computed; those of loading end with its thread. With
            # more of them than cores libgomp sends them to sleep at once: a small step took thrice as long.
            with ThreadPoolExecutor(1, "marquee-load") as loading:
                loading.submit(self._load, Path(properties["model_dir"]), properties.get("gpu_id")).result()
            self._warm_up()
            self._publisher = Publisher(self._carrier.engine, context.metrics, context.model_name)
        except Exception as error:
            message = f"marquee cannot serve this archive: {type(error).__name__}: {error}"
            logger.error(message)
            raise RuntimeError(message) from error
        logger.info("marquee is ready on %s in %s", self._description["device"], self._description["dtype"])

    def handle(self, data: Any, context: Any) -> list[Any]:
        """Answer a batch, or one iteration of it: exactly one entry per row of ``data``, whatever happens."""
        rows = list(data or [])
        try:
            answers = self._iterate(rows, context) if self._iterations else self._handle_batch(rows, context)
        except Exception:
            logger.exception("answering %d requests failed", len(rows))
            answers = self._give_up(rows, context)
        self._publish()
        return answers

    def _publish(self) -> None:
        try:
            if self._publisher is not None:
                self._publisher.publish()
        except Exception:
            logger.exception("publishing metrics failed; there will be none from this worker")
            self._publisher = None

    def _give_up(self, rows: list[Any], context: Any) -> list[Any]:
        """An error for every row, said as well as a context allows that has just failed."""
        parts = [Part(refuse(INTERNAL), None)] * len(rows)
        try:
            if self._iterations:
                names = [context.request_ids[index] for index in range(len(rows))]
                parts = self._iterations.abandon(names, refuse(INTERNAL))
                context.stopping_criteria = [partial(_stop, part) for part in parts]
            else:
                self._carrier.abandon()
            return [_send_part(context, index, part) for index, part in enumerate(parts)]
        except Exception:
            logger.exception("giving up on %d requests failed, too", len(rows))
            return [refuse(INTERNAL).text] * len(rows)

    def _handle_batch(self, rows: list[Any], context: Any) -> list[Any]:
        merged = are_instances(rows, context)
        try:
            requests: list[Parsed]
            if merged:
                requests = [self._parse({"instances": [row]}) for row in rows]
            else:
                requests = [self._parse_request(row, context, index) for index, row in enumerate(rows)]
            replies = self._answer(requests)
        except Exception:
            logger.exception("a batch of %d requests failed", len(rows))
            self._carrier.abandon()
            replies = [refuse(INTERNAL)] * len(rows)
        if merged:
            return in_band(replies, self._settings.limits.max_response_bytes)
        return [_send(context, index, one) for index, one in enumerate(replies)]

    def _iterate(self, rows: list[Any], context: Any) -> list[Any]:
        """Continuous batching: draw for a moment, then say what there is to say to each request."""
        names = [context.request_ids[index] for index in range(len(rows))]

        def read(index: int) -> Any:
            request = self._parse_request(rows[index], context, index)
            if isinstance(request, Request):
                return Arrival(_jobs(request), partial(self._reply, request))
            return self._reply(request, ())

        try:
            parts = self._iterations.iterate(names, read)
        except Exception:
            logger.exception("an iteration of %d requests failed", len(rows))
            parts = self._iterations.abandon(names, refuse(INTERNAL))
        context.stopping_criteria = [partial(_stop, part) for part in parts]
        return [_send_part(context, index, part) for index, part in enumerate(parts)]

    def _load(self, root: Path, gpu_id: int | None) -> None:
        os.environ.update(LIBRARY_ENVIRONMENT)
        from handler.describe import describe
        from handler.device import set_threads
        from handler.engine.compiled import with_compiled_unet
        from handler.engine.gpu import tune_for_gpu
        from handler.engine.profile import choose_profile
        from handler.engine.start import start_engine
        from handler.model import load_model
        from handler.vendored import check_pillow, packages_in_use

        check_pillow()
        _quiet_libraries()
        settings = load_settings(root / "model-config.yaml")
        threads = set_threads(settings)
        model = with_compiled_unet(load_model(root / "model", settings, gpu_id), root)
        model = tune_for_gpu(model, settings)
        self._settings = settings
        profile = choose_profile(model, settings)
        engine = start_engine(model, settings, profile)
        self._description = {
            **describe(model, settings, threads, archive_digest(root)),
            "packages": packages_in_use(root),
            "engine": {
                **asdict(profile),
                "strict": settings.strict,
                "continuous": settings.continuous_batching,
            },
        }
        self._carrier = Carrier(engine, Watchdog(settings.max_step_seconds))
        if settings.continuous_batching and not _ignores_continuous_batching():
            self._iterations = Iterations(self._carrier)

    def _warm_up(self) -> None:
        """Answer one small request of our own; readiness means that this worked."""
        steps = min(2, self._settings.defaults.num_inference_steps)
        prompt = "warm-up"[: self._settings.limits.max_prompt_characters]
        instance = {"prompt": prompt, "num_inference_steps": steps, "seed": 0}
        (answer,) = self._answer([self._parse({"instances": [instance]})])
        if answer.status != 200:
            raise RuntimeError(f"the warm-up request failed: {answer.text}")

    def _parse_request(self, row: Any, context: Any, index: int) -> Parsed:
        if self._gate.asks_to_close(row):
            # Its answer leaves with its batch's, after every request that came before it.
            return Reply(200, to_json(self._gate.close(running=len(self._carrier.open_requests))))
        if self._gate.is_closed():
            return DRAINING
        # GET /models/model?customized=true comes as a batch of one with this header (ts BaseHandler.handle).
        if str(context.get_request_header(index, "describe")).lower() == "true":
            return Request((Describe(),), bare=True)
        return self._parse(row)

    def _parse(self, row: Any) -> Request | Refusal:
        try:
            return parse_row(row, self._settings, _draw_seed)
        except Exception:
            logger.exception("parsing a request failed")
            return INTERNAL

    def _answer(self, requests: Sequence[Parsed]) -> list[Reply]:
        """Draw all requests' jobs together, then reply to each its own."""
        for index, request in enumerate(requests):
            self._carrier.admit(str(index), _jobs(request), partial(self._reply, request))
        answers = self._carrier.finish_all(self._settings.max_batch_seconds)
        return [answers[str(index)] for index in range(len(requests))]

    def _reply(self, request: Parsed, outcomes: Sequence[Outcome | None]) -> Reply:
        if isinstance(request, Reply):
            return request
        if isinstance(request, Refusal):
            return refuse(request)
        try:
            return reply(request, outcomes, self._description, self._settings.limits.max_response_bytes)
        except Exception:
            logger.exception("replying to a request failed")
            return refuse(INTERNAL)


def _quiet_libraries() -> None:
    """Errors only, wherever they were first imported: their warnings quote the prompts they truncate."""
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _jobs(request: Parsed) -> list[Job]:
    items = request.items if isinstance(request, Request) else ()
    return [item for item in items if isinstance(item, Job)]


def _draw_seed() -> int:
    return secrets.randbelow(2**32)


def _send(context: Any, index: int, one: Reply) -> str:
    context.set_response_status(one.status, "", index)
    context.set_response_content_type(index, "application/json")
    if one.retry_after_seconds is not None:
        context.set_response_header(index, "Retry-After", str(one.retry_after_seconds))
    return one.text


def _send_part(context: Any, index: int, part: Part[Reply]) -> str:
    """What to say now; an error after the headers have left, with status 200, names its own status.

    The answer's first character leaves with the headers. TorchServe writes the chunks of a second request on
    a connection into the answer to the first (docs/security.md): two opening braces make that no JSON.
    """
    if part.reply is None:
        context.set_response_content_type(index, "application/json")
        return OPENING if part.opens else ""
    if part.stop is None:
        return _send(context, index, part.reply)
    text = part.reply.text
    if part.reply.status != 200:
        answer = json.loads(text)
        answer["error"]["status"] = part.reply.status
        text = to_json(answer)
    return text[len(OPENING) :]


def _stop(part: Part[Reply], _: Any) -> bool | None:
    return part.stop


def _ignores_continuous_batching() -> bool:
    """TorchServe before 0.9 does not know the switch and sends plain batches.

    Raises RuntimeError for 0.9 to 0.11.0, which know it and then answer nothing.
    """
    import ts

    version = tuple(int(part) for part in ts.__version__.split(".")[:3] if part.isdigit())
    if (0, 9) <= version < (0, 11, 1):
        raise RuntimeError(
            f"TorchServe {ts.__version__} answers nothing under continuousBatching; take it out of"
            " the archive's model-config.yaml"
        )
    return version < (0, 9)
