"""Answers and parts of answers as TorchServe takes them: a text, and words to its context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from handler.contract.response import Reply, to_json
from handler.doors.torchserve.context import Context
from handler.doors.torchserve.continuous import ReplyChunk
from handler.doors.torchserve.event_lines import CONTENT_TYPE, OPENING, finished, unfinished


def send(context: Context, index: int, one: Reply) -> str:
    """The text of a whole answer; its status and headers go into the context."""
    context.set_response_status(one.status, "", index)
    context.set_response_content_type(index, "application/json")
    if one.retry_after_seconds is not None:
        context.set_response_header(index, "Retry-After", str(one.retry_after_seconds))
    return one.text


def send_chunks(context: Context, chunks: Sequence[ReplyChunk[Reply]]) -> list[object]:
    """What to send to each request now; TorchServe asks the context which of them are answered."""
    context.stopping_criteria = [partial(_stop, chunk) for chunk in chunks]
    return [_send_chunk(context, index, chunk) for index, chunk in enumerate(chunks)]


def _send_chunk(context: Context, index: int, chunk: ReplyChunk[Reply]) -> str:
    """The text to send now. After the headers have left, with status 200, an error names its own status.

    The answer's first character leaves with the headers. TorchServe writes the chunks of a second request on
    a connection into the answer to the first (docs/security.md): two opening braces make that no JSON.
    """
    if chunk.lines is not None:
        return _send_lines(context, index, chunk, chunk.lines)
    if chunk.reply is None:
        context.set_response_content_type(index, "application/json")
        return OPENING if chunk.opens else ""
    if chunk.stop is None:
        return send(context, index, chunk.reply)
    text = chunk.reply.text
    if chunk.reply.status != 200:
        answer = json.loads(text)
        answer["error"]["status"] = chunk.reply.status
        text = to_json(answer)
    return text[len(OPENING) :]


def _send_lines(context: Context, index: int, chunk: ReplyChunk[Reply], lines: Sequence[str]) -> str:
    """The part of a stream to send now. An error that is the first word has its own HTTP status."""
    if chunk.reply is not None and chunk.stop is None and chunk.reply.status != 200:
        return send(context, index, chunk.reply)
    context.set_response_content_type(index, CONTENT_TYPE)
    opening = OPENING if chunk.opens or chunk.stop is None else ""
    return opening + (unfinished(lines) if chunk.reply is None else finished(lines, chunk.reply))


def _stop(chunk: ReplyChunk[Reply], _: object) -> bool | None:
    return chunk.stop
