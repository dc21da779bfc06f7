"""TorchServe's request envelopes: kept from taking requests apart, and lived with where they do.

Beside ``handler.doors.torchserve.door`` and its metrics this is all that knows TorchServe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from handler.contract.problem import Refusal
from handler.contract.response import Reply, refuse
from handler.doors.torchserve.context import Context

NO_ROOM = Refusal(413, "response_too_large", "the answers to this batch are too large together")


def are_instances(rows: Sequence[object], context: Context) -> bool:
    """Whether an envelope that is not ours has merged the batch into one list of instances.

    Rows of requests are mappings from parameter names to values, "body" that of most. A prompt is text there
    only as a part of a form.
    """
    requests = [row for row in rows if isinstance(row, Mapping)]
    if len(rows) != len(context.request_ids or rows) or len(requests) < len(rows):
        return True
    if any("body" in row for row in requests):
        return False
    fields = [row.get(name) for row in requests for name in ("prompt", "describe", "data")]
    return any(isinstance(field, (str, bool)) or _has_prompt(field) for field in fields)


def _has_prompt(value: object) -> bool:
    return isinstance(value, Mapping) and "prompt" in value


def in_band(replies: Sequence[Reply], max_bytes: int) -> list[object]:
    """A prediction per instance, errors among them as objects, together below the reply limit.

    Nothing may be said through the context here: its indexes are those of requests.
    """
    room, predictions = max_bytes, list[object]()
    for one in replies:
        sent = one if len(one.text) <= room else refuse(NO_ROOM)
        room -= len(sent.text)
        answer = json.loads(sent.text)
        predictions.append(answer["predictions"][0] if sent.status == 200 else answer)
    return predictions


def _pass_through(self: Any, data: Any, context: Any) -> Any:
    self.context = context
    return self._handle_fn(data, context)


def own_envelopes() -> None:
    """Have TorchServe hand over whole requests, as bytes, where this TorchServe has such envelopes.

    The json envelope drops ``parameters``, merges the requests of a batch into one list, and answers one bad
    body with 503 for all (ts/torch_handler/request_envelope/json.py, the same from 0.7 to 0.12). A body of
    application/json or text would be parsed before the handler could look at its size and its keys; the
    variable is read anew for each request (ts/protocol/otf_message_handler.py, _retrieve_input_data).
    """
    try:
        from ts.torch_handler.request_envelope import body, json
    except ImportError:
        return
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
    json.JSONEnvelope.handle = _pass_through
    body.BodyEnvelope.handle = _pass_through
