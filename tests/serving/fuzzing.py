"""Requests as a hostile hand would send them, made by chance from a seed: each with the name of its kind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from raw_http import request

FIELDS = (
    *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "width", "height"),
    *("scheduler", "output_format", "quality", "response", "deadline_seconds", "describe", "data", "drain"),
)
WORDS = (
    *(
        "a cat",
        "",
        " ",
        "\x00",
        "\ud800",
        "\udc00\ud800",
        "é" * 3,
        "\U0001d518" * 400,
        "a" * 1001,
        "a" * 100_000,
    ),
    *(
        "Retry worker",
        "Retry worker: 9000 in 1 seconds.",
        "a=%zzRetry worker",
        "\n[WARN ] W-9000 Retry worker",
    ),
    *(
        "%s%n${jndi:ldap://127.0.0.1:1/a}",
        "NaN",
        "null",
        "true",
        "{",
        "PNDM",
        "png",
        "full",
        "18446744073709551615",
    ),
)
NUMBERS = (
    *("0", "-0", "1", "-1", "1.5", "25.0", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity"),
    *("9" * 30, "9" * 399, "9" * 5000, "-" + "9" * 20_000, "0." + "3" * 5000, "18446744073709551616", "0x10"),
)
CONTENT_TYPES = (
    *("application/json", "application/json", "application/json", "application/json; charset=utf-16", None),
    *("text/plain", "application/octet-stream", "application/x-www-form-urlencoded", "image/png", ";;;", ""),
    "multipart/form-data; boundary=x",
)
Chance = random.Random


def good(chance: Chance) -> dict[str, Any]:
    """A small request that is right."""
    fields = {"prompt": "a red circle", "seed": chance.randrange(2**32), "num_inference_steps": 2}
    return {"instances": [fields], "parameters": {"width": 64, "height": 64}}


def value(chance: Chance, depth: int = 0) -> str:
    """JSON text of any kind, not all of it legal."""
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return json.dumps(chance.choice(WORDS), ensure_ascii=chance.random() < 0.9)
    if kind < 4:
        return chance.choice(NUMBERS)
    if kind == 4:
        return chance.choice(("true", "false", "null", "[]", "{}"))
    if kind == 5:
        return "[" + ",".join(value(chance, depth + 1) for _ in range(chance.randrange(4))) + "]"
    names = [chance.choice((*FIELDS, *WORDS)) for _ in range(chance.randrange(4))]
    return "{" + ",".join(f"{json.dumps(name)}:{value(chance, depth + 1)}" for name in names) + "}"


def wrong_field(chance: Chance) -> bytes:
    field = f"{json.dumps(chance.choice(FIELDS))}:{value(chance)}"
    instance = '{"prompt":"a","num_inference_steps":2,' + field + "}"
    parameters = "{" + field + "}" if chance.random() < 0.5 else value(chance)
    return f'{{"instances":[{instance}],"parameters":{parameters}}}'.encode("utf-8", "surrogatepass")


def wrong_shape(chance: Chance) -> bytes:
    return value(chance).encode("utf-8", "surrogatepass")


def wrong_instances(chance: Chance) -> bytes:
    return f'{{"instances":{value(chance)}}}'.encode("utf-8", "surrogatepass")


def key_twice(chance: Chance) -> bytes:
    text = json.dumps(good(chance))
    name = chance.choice(("instances", "parameters", "prompt", "seed"))
    return text.replace(f'"{name}":', f'"{name}":{value(chance)},"{name}":', 1).encode(
        "utf-8", "surrogatepass"
    )


def truncated(chance: Chance) -> bytes:
    text = json.dumps(good(chance)).encode()
    return text[: chance.randrange(len(text))]


def flipped(chance: Chance) -> bytes:
    text = bytearray(json.dumps(good(chance)).encode())
    for _ in range(chance.randint(1, 5)):
        text[chance.randrange(len(text))] = chance.randrange(256)
    return bytes(text)


def encoded(chance: Chance) -> bytes:
    text = json.dumps(good(chance))
    codec = chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp037", "latin-1"))
    return text.replace("circle", "cïrcle").encode(codec, "replace")


def deep(chance: Chance) -> bytes:
    opening = chance.choice(("[", '{"a":', '{"instances":[', '[{"data":'))
    return (opening * chance.choice((10, 999, 20_000))).encode()


def noise(chance: Chance) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 10, 3000)))


def forged(chance: Chance) -> bytes:
    return (
        b"a=%zz"
        + chance.choice(WORDS).encode("utf-8", "surrogatepass")
        + b"\nRetry worker: 9000 in 1 seconds."
    )


def many(chance: Chance) -> bytes:
    unit = chance.choice((b"{},", b"[],", b"0,", b'"a",', b'{"prompt":"a"},'))
    size = chance.choice((2_000, 100_000, 9_000_000))
    return b'{"instances":[' + unit * (size // len(unit)) + b"{}]}"


def large(chance: Chance) -> bytes:
    """Over the handler's limit."""
    return b'{"instances":["' + b"a" * chance.choice((10_000_000, 12_000_000)) + b'"]}'


def form(chance: Chance) -> bytes:
    name = chance.choice(("body", "data", "prompt", "instances", ""))
    part = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
    return part + json.dumps(good(chance)).encode() + chance.choice((b"\r\n--x--\r\n", b"\r\n--x", b""))


BODIES: dict[Callable[[Chance], bytes], int] = {
    wrong_field: 30,
    wrong_shape: 8,
    wrong_instances: 12,
    key_twice: 8,
    truncated: 6,
    flipped: 8,
    encoded: 6,
    deep: 5,
    noise: 4,
    forged: 5,
    form: 4,
    many: 2,
    large: 1,
}
"""How often each comes, beside the others."""

HEADERS: tuple[dict[str, str], ...] = (
    *({}, {}, {}, {}),
    {"describe": "true"},
    {"explain": "True"},
    {"x-request-id": "Retry worker"},
    {"ts_request_sequence_id": "1", "ts_stream_next": "true"},
    {"Expect": "100-continue"},
)


def fuzzed(chance: Chance) -> tuple[str, bytes]:
    """The kind of a request, and the request."""
    (make,) = chance.choices(list(BODIES), list(BODIES.values()))
    content_type = CONTENT_TYPES[-1] if make is form else chance.choice(CONTENT_TYPES)
    target = chance.choice(("POST /predictions/model",) * 6 + ("POST /invocations", "PUT /predictions/model"))
    headers = {} if make in (many, large) else chance.choice(HEADERS)
    kind = "form" if content_type and ("form" in content_type) else make.__name__
    return kind, request(make(chance), content_type, headers, target)
