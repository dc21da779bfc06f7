"""A server of raw sockets, and the answers that no honest server gives."""

from __future__ import annotations

import base64
import gzip
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from PIL import Image

Behaviour = Callable[[socket.socket, bytes], object]
"""Gets the connection and the head of the request that came."""
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e error: [red]all is well[/red]\n  cure: rm -rf /"
DRIPS = 200  # with 20 ms between: some seconds, for a client that waits for the end


@contextmanager
def serving(behave: Behaviour) -> Iterator[str]:
    """The URL of a server that reads each request whole and then does as told with the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=_accept, args=(listener, behave), daemon=True)
        accepting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


def _accept(listener: socket.socket, behave: Behaviour) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                behave(connection, _read_request(connection))


def _read_request(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as file:
        head, length = b"", 0
        while (line := file.readline().strip()) != b"":
            head += line + b"\n"
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        file.read(length)
    return head


def answer(body: bytes, status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    told = {
        "content-type": "application/json",
        "content-length": str(len(body) if length is None else length),
    }
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body


def sent(data: bytes) -> Behaviour:
    return lambda connection, _: connection.sendall(data)


def document(value: Any, **headers: str) -> Behaviour:
    return sent(answer(json.dumps(value).encode(), **headers))


def picture(format_name: str = "jpeg", size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, format_name)
    return file.getvalue()


def drawn(data: bytes) -> Behaviour:
    return document({"predictions": [base64.b64encode(data).decode()]})


def whole() -> bytes:
    return answer(json.dumps({"predictions": [base64.b64encode(picture()).decode()]}).encode())


def giant_png(width: int = 20_000, height: int = 20_000) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def broken_png() -> bytes:
    data = bytearray(picture("png", (64, 64)))
    data[40:60] = bytes(20)
    return bytes(data)


def bomb(size: int = 72 << 20) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join([*(packer.compress(zeros) for _ in range(size >> 20)), packer.flush()])


def dripping(start: bytes, drop: bytes, end: bytes = b"") -> Behaviour:
    """Never silent for long, not done within a short deadline; its end makes it a right answer."""

    def drip(connection: socket.socket, _: bytes) -> None:
        connection.sendall(start)
        for _ in range(DRIPS):
            connection.sendall(drop)
            time.sleep(0.02)
        connection.sendall(end)

    return drip


def endless(start: bytes, part: bytes) -> Behaviour:
    def send(connection: socket.socket, _: bytes) -> None:
        connection.sendall(start)
        for _ in range((256 << 20) // len(part)):
            connection.sendall(part)

    return send


def reset(connection: socket.socket, _: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def chunked(body: bytes) -> Behaviour:
    return sent(answer(b"", content_length="", transfer_encoding="chunked") + body)


def _last_chunks() -> bytes:
    body = whole().partition(b"\r\n\r\n")[2]
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
UNTIL_CLOSE = HEAD + b"\r\n"
BOMB = bomb()
MIB_OF_A = b"A" * (1 << 20)
DRIPPING: dict[str, Behaviour] = {
    "a body that drips": dripping(UNTIL_CLOSE, b" ", whole().partition(b"\r\n\r\n")[2]),
    "headers that drip": dripping(HEAD + b"x-drip: ", b"a", b"\r\n" + whole().partition(b"\r\n")[2]),
    "a status line that drips": dripping(b"HTTP/1.1 200 ", b"O", whole()[15:]),
    "one 100 Continue after the other": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n", whole()),
    "chunks that drip": dripping(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n", _last_chunks()),
    "silence": lambda connection, _: connection.recv(1),
}
ANSWERS: dict[str, Behaviour] = {
    "nothing": sent(b""),
    "a reset": reset,
    "no HTTP": sent(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "binary": sent(bytes(range(256)) * 4),
    "half of the headers": sent(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "half of the body": sent(answer(b'{"predictions"', length=5000)),
    "a broken chunk": chunked(b"zz\r\nabc\r\n"),
    "half of the chunks": chunked(b'5\r\n{"pre\r\n'),
    "a negative length": sent(answer(b"{}", content_length="-5")),
    "two lengths": sent(answer(b"{}", content_length="2\r\ncontent-length: 7")),
    "a length beyond numbers": sent(answer(b"{}", content_length="9" * 40)),
    "endless headers": endless(HEAD, b"x-a: " + b"b" * 4000 + b"\r\n"),
    "one endless header": endless(HEAD + b"x-a: ", b"b" * 65536),
    "an endless body": endless(UNTIL_CLOSE, MIB_OF_A),
    "an endless error": endless(b"HTTP/1.1 500 Oops\r\n\r\n", MIB_OF_A),
    "status 999": sent(answer(b"{}", "999 What")),
    "status 204": sent(answer(b"", "204 No Content")),
    "a switch of protocols": sent(answer(b"", "101 Switching Protocols", upgrade="h2c")),
    "a redirect": sent(answer(b"", "302 Found", location="http://127.0.0.1:1/elsewhere")),
    "a redirect that keeps the method": sent(answer(b"", "307 Temporary", location="//127.0.0.1:1/")),
    "a redirect to a file": sent(answer(b"", "301 Moved", location="file:///etc/passwd")),
    "a redirect to nowhere": sent(answer(b"", "308 Permanent")),
    "no content": document(None),
    "a list": document([1, 2, 3]),
    "a string": document(ESCAPES),
    "not JSON": sent(answer(b"<html>" + ESCAPES.encode() + b"</html>", content_type="text/html")),
    "an unknown charset": sent(answer(b"\xff\xfe{}", content_type="application/json; charset=rot13")),
    "not UTF-8": sent(answer(b'{"predictions": ["\xff\xfe"]}')),
    "UTF-16": sent(answer('{"predictions": []}'.encode("utf-16"))),
    "NUL bytes": sent(answer(b"\0" * 100)),
    "deep JSON": sent(answer(b"[" * 200_000 + b"]" * 200_000)),
    "deep objects": sent(answer(b'{"predictions":' * 20_000 + b"1" + b"}" * 20_000)),
    "millions of values": sent(answer(b"[" + b"{}," * 4_000_000 + b"{}]")),
    "a number of a million digits": sent(answer(b'{"predictions": [' + b"9" * 1_000_000 + b"]}")),
    "a number beyond floats": sent(answer(b'{"predictions": [1e999]}')),
    "NaN": sent(answer(b'{"predictions": [NaN]}')),
    "one key twice": sent(answer(b'{"predictions": ["a"], "predictions": ["b"]}')),
    "gzip that is none": sent(answer(b"{}", content_encoding="gzip")),
    "a gzip bomb": sent(answer(BOMB, content_encoding="gzip")),
    "a gzip bomb as an error": sent(answer(BOMB, "500 Oops", content_encoding="gzip")),
    "half of a gzip": sent(answer(gzip.compress(b'{"predictions": []}')[:-9], content_encoding="gzip")),
    "an unknown encoding": sent(answer(b"{}", content_encoding="br, zstd, \x1b[31m")),
    "no predictions": document({}),
    "predictions that are null": document({"predictions": None}),
    "too few predictions": document({"predictions": []}),
    "too many predictions": document({"predictions": ["x"] * 5000}),
    "a prediction of a list": document({"predictions": [[1]]}),
    "a prediction of an empty object": document({"predictions": [{}]}),
    "an image that is a list": document({"predictions": [{"image": [1]}]}),
    "a receipt that is a list": document({"predictions": [{"image": "", "receipt": [1]}]}),
    "an error in place of a picture": document({"predictions": [{"error": {"message": ESCAPES}}]}),
    "base64 of no alphabet": document({"predictions": ["%%%"]}),
    "base64 that is not ASCII": document({"predictions": ["é" * 40]}),
    "half of a surrogate pair": sent(answer(b'{"predictions": ["\\ud800"]}')),
    "base64 of nothing": document({"predictions": [""]}),
    "a text for a picture": drawn(b"#!/bin/sh\necho owned\n"),
    "a GIF": drawn(picture("gif")),
    "a BMP": drawn(picture("bmp")),
    "a PNG that was to be a JPEG": drawn(picture("png")),
    "another size": drawn(picture(size=(64, 72))),
    "half of a JPEG": drawn(picture()[:400]),
    "a JPEG's head alone": drawn(picture()[:20]),
    "a broken PNG": drawn(broken_png()),
    "a PNG of 20000 x 20000": drawn(giant_png()),
    "a PNG of 10000 x 10000": drawn(giant_png(10_000, 10_000)),
    "a PNG without pixels": drawn(giant_png(0, 0)),
    "an error that is a number": document({"error": 5}, status="500 Oops"),
    "an error that is null": document({"error": None}, status="500 Oops"),
    "an error of escapes": document({"error": {"message": ESCAPES}}, status="500 Oops"),
    "an error with escapes of TorchServe's form": document(
        {"code": 404, "message": ESCAPES}, status="404 No"
    ),
    "a long error": document({"error": {"message": "a" * 5_000_000}}, status="500 Oops"),
    "an error under 200": document({"error": {"status": 503, "message": ESCAPES}}),
    "an error with status true": document({"error": {"status": True, "message": "x"}}),
    "an error with a status beyond HTTP": document({"error": {"status": 10**30, "message": "x"}}),
    "an error with status 200": document({"error": {"status": 200, "message": "x"}}),
    "problems that are a number": document({"error": {"message": "m", "problems": 5}}, status="400 Bad"),
    "problems that are an object": document({"error": {"problems": {"a": 1}}}, status="400 Bad"),
    "problems of escapes": document({"error": {"problems": [{"message": ESCAPES}] * 2}}, status="400 Bad"),
    "a hundred thousand problems": document({"error": {"problems": [ESCAPES] * 100_000}}, status="400 Bad"),
    "a problem of odd types": document(
        {"error": {"problems": [{"instance": "x", "field": [1], "message": None}, None]}}, status="400 Bad"
    ),
    "a wait of nan": document({"message": "m"}, status="503 Busy", retry_after="nan"),
    "a wait of -1": document({"message": "m"}, status="429 Busy", retry_after="-1"),
    "a wait of ages": document({"message": "m"}, status="503 Busy", retry_after="9" * 400),
    "a wait until no day": document({"message": "m"}, status="503 Busy", retry_after="Thu, 99 Foo 0000"),
    "a header of escapes": sent(answer(b"{}", "500 \x1b[31mRed", x_a="\x1b]0;owned\x07")),
    **DRIPPING,
}
