"""Readiness is a picture: /ping answers 200 while the model loads, crash-loops or has no process at all."""

from __future__ import annotations

import base64
import io
import time
from typing import TYPE_CHECKING, Any

from pipeline.client.predictions import is_withheld
from pipeline.errors import MarqueeError
from pipeline.serving.server import RunningServer
from pipeline.serving.worker_errors import death_cause, server_complaints

if TYPE_CHECKING:
    import httpx

POLL_SECONDS = 0.1
LAST_WORDS_SECONDS = 3.0
SHOWN_LINES = 25
WARM_UP_PROMPT = "warm up"
WARM_UP_STEPS = 2


def wait_until_ready(server: RunningServer) -> None:
    """Wait for a READY worker, then (``options.warm_up``) for its first picture.

    Raises MarqueeError with the worker's own error as soon as the server has died or the load has failed.
    """
    deadline = time.monotonic() + server.options.start_seconds
    while not (state := server.worker_state()).ready:
        _check_progress(server)
        if state.missing:  # TorchServe opens its ports after it has registered the models it could unpack
            raise _refusal(server)
        if time.monotonic() > deadline:
            raise failure(server, f"the model was not loaded within {server.options.start_seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    if server.options.warm_up:
        _draw_warm_up(server, max(1.0, deadline - time.monotonic()))


def _check_progress(server: RunningServer) -> None:
    if not server.is_running():
        raise failure(server, f"TorchServe ended with code {server.launcher.returncode}")
    if len(server.worker_ends()) >= server.options.maximum_load_failures:
        raise failure(server, "the worker died while it loaded the model")


def _refusal(server: RunningServer) -> MarqueeError:
    lines = server_complaints(server.logs)[-SHOWN_LINES:]
    return MarqueeError("\n".join(["TorchServe refused the archive", *(f"  | {line}" for line in lines)]))


def failure(server: RunningServer, what: str) -> MarqueeError:
    """An error that begins with ``what``, then gives the last worker's cause of death and last lines."""
    ends = server.worker_ends()
    if not ends:
        return MarqueeError("\n".join([what, f"  | {server.log_tail(SHOWN_LINES)}"]))
    lines = [f"  | {line}" for line in ends[-1].lines[-SHOWN_LINES:]]
    return MarqueeError("\n".join([f"{what}: {death_cause(ends[-1])}", *lines]))


def _draw_warm_up(server: RunningServer, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    described = _post(server, {"describe": True}, seconds)
    answer = _post(server, warm_up_instance(described), max(1.0, deadline - time.monotonic()))
    if answer.status_code != 200:
        raise _death(server, f"the warm-up request got {answer.status_code} ({answer.text[:500]})")
    drawn = _document(answer)
    if not _is_picture(drawn) and not was_withheld(_document(described), drawn):
        raise _death(server, f"the warm-up answer is no picture ({answer.text[:200]})")


def _post(server: RunningServer, instance: dict[str, Any], seconds: float) -> httpx.Response:
    import httpx

    try:
        body = {"instances": [instance]}
        return httpx.post(server.predict_url, json=body, timeout=seconds, trust_env=False)
    except httpx.TransportError as error:
        raise _death(server, f"the warm-up request got no answer ({error!r})") from error


def warm_up_instance(described: httpx.Response) -> dict[str, Any]:
    """``quick_instance`` of an answer to {"describe": true}."""
    try:
        return quick_instance(_document(described)["predictions"][0])
    except (LookupError, TypeError):
        return quick_instance(None)


def quick_instance(description: Any) -> dict[str, Any]:
    """The quickest picture that the archive's own limits allow, in its own default size.

    A model that draws no picture of a text alone is asked to paint a small grey one anew. ``description`` is
    what an archive says of itself; one that is not marquee's handler need not know that.
    """
    instance: dict[str, Any] = {"prompt": WARM_UP_PROMPT, "seed": 0, "num_inference_steps": WARM_UP_STEPS}
    try:
        limits = description["limits"]
        instance["num_inference_steps"] = min(WARM_UP_STEPS, int(limits["max_num_inference_steps"]))
        instance["prompt"] = WARM_UP_PROMPT[: int(limits["max_prompt_characters"])]
        if "text_to_image" not in description.get("families", ["text_to_image"]):
            size = {side: int(description["defaults"][side]) for side in ("width", "height")}
            instance.update(size, image=_grey_picture(), mask_image=_grey_picture())
    except (LookupError, TypeError, ValueError, AttributeError):
        return instance
    return instance


def _grey_picture() -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8), 200).save(file, "png")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _document(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _death(server: RunningServer, what: str) -> MarqueeError:
    """The failure of a request. Waits for the report of a worker that may have died of it."""
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while not server.worker_ends() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return failure(server, what)


def was_withheld(described: Any, answer: Any) -> bool:
    """Whether the picture was drawn, and the archive's own safety checker then withheld it."""
    try:
        checker, prediction = described["predictions"][0]["safety_checker"], answer["predictions"][0]
        image = prediction["image"] if isinstance(prediction, dict) else prediction
        return bool(checker["action"] == "withhold") and is_withheld(image, prediction)
    except (LookupError, TypeError):
        return False


def _is_picture(answer: Any) -> bool:
    from PIL import Image

    try:
        prediction = answer["predictions"][0]
        encoded = prediction["image"] if isinstance(prediction, dict) else prediction
        Image.open(io.BytesIO(base64.b64decode(encoded))).load()
    except (LookupError, TypeError, ValueError, OSError):
        return False
    return True
