"""What a hostile client sends: archives that run code, lines for the logs, prompts in broken bodies."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil

MARKED_PROMPT = "a xylophone nobody else would ask for"
MARK = "xylophone"
SECONDS = 60.0
FORGED = "Retry worker: 9000 in 1 seconds.\nBackend worker process died.\nRuntimeError: forged"


def write_evil_archives(folder: Path) -> tuple[list[Path], Path]:
    """A .war and a .mar whose Python, once imported, makes the file that is returned beside them."""
    trace = folder / "executed"
    function = "def {}(data, context):\n    return data\n"
    code = f"open({str(trace)!r}, 'w').close()\n{function.format('pre')}{function.format('handle')}"
    spec = "models:\n  min-workers: 1\n  max-workers: 1\ndag:\n  pre: [post]\n"
    workflow = {"workflow": {"workflowName": "evil", "specFile": "evil.yaml", "handler": "evil.py"}}
    model = {"model": {"modelName": "evil", "handler": "evil.py", "modelVersion": "1.0"}, "runtime": "python"}
    with zipfile.ZipFile(folder / "evil.war", "w") as war:
        war.writestr("WAR-INF/MANIFEST.json", json.dumps(workflow | {"archiverVersion": "0.2.15"}))
        war.writestr("evil.yaml", spec)
        war.writestr("evil.py", code.replace("def handle", "def post"))
    with zipfile.ZipFile(folder / "evil.mar", "w") as mar:
        mar.writestr("MAR-INF/MANIFEST.json", json.dumps(model | {"archiverVersion": "0.12.0"}))
        mar.writestr("evil.py", code)
    return [folder / "evil.war", folder / "evil.mar"], trace


def registrations(archives: list[Path]) -> list[str]:
    """Paths that register each archive through the workflow and the model API, in several spellings."""
    spellings = [
        spelling
        for archive in archives
        for spelling in (
            f"file://{archive}",
            f"FILE://{archive}",
            f"file:{archive}",
            str(archive),
            archive.name,
        )
    ]
    return [
        f"/{api}?initial_workers=1&synchronous=true&url={quote(spelling, safe='')}"
        for spelling in spellings
        for api in ("workflows", "models")
    ]


def statuses(client: httpx.Client, base: str, paths: list[str]) -> set[int]:
    """The answers to each path as a web page elsewhere can post it: a simple request."""
    headers = {"Origin": "http://elsewhere.example", "Content-Type": "text/plain"}
    return {client.post(base + path, headers=headers, content=b"").status_code for path in paths}


def reachable_ports(family: psutil.Process) -> set[int]:
    """The TCP ports of these processes that take a connection on this machine."""
    processes = [family, *family.children(recursive=True)]
    listening = {
        connection.laddr.port
        for process in processes
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    addresses = ("127.0.0.1", "127.255.255.255")
    return {port for port in listening if any(_connects(address, port) for address in addresses)}


def _connects(address: str, port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((address, port)) == 0


def send_marked_prompts(port: int, text: str = MARKED_PROMPT) -> list[int]:
    """Post ``text`` in many broken ways; returns the statuses, 0 for a connection that was closed."""
    body = json.dumps({"instances": [{"prompt": text}]}).encode()
    form = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n'
    form += b"Content-Transfer-Encoding: %s\r\n\r\n%s\r\n--b--"
    name = text.encode()
    bodies = [body, body[:-3], body + b"}", name, b"a=%zz" + name, b"\xff\xfe" + name, b"%" + name + b"=%u"]
    kinds = [None, "application/json", "text/plain", "application/x-www-form-urlencoded", f"x/{text}; {text}"]
    requests = [(kind, one) for kind in kinds for one in bodies]
    for kind in (
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        f"multipart/form-data; boundary={text}",
    ):
        requests += [
            (kind, form % (name, encoding, name)) for encoding in (b"base64", b"8bit", b"none " + name)
        ]
        requests += [(kind, form[:40] + name), (kind, name)]
    return [_send(port, "/predictions/model", kind, one) for kind, one in requests] + [
        _send(port, f"/{path}{quote(text)}", "application/json", body)
        for path in (
            "",
            "predictions/",
            "predictions/model/",
            "invocations?prompt=",
            "v1/models/",
            "wfpredict/",
        )
    ]


def _send(port: int, path: str, kind: str | None, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.putrequest("POST", path)
        if kind is not None:
            connection.putheader("Content-Type", kind.replace("\n", " "))
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@contextmanager
def forging(port: int) -> Iterator[None]:
    """Lines that tell of dead workers are posted without a pause as long as the block lasts."""
    over = threading.Event()

    def forge() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(OSError):
                for kind in (None, "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
                    _post_and_leave(port, kind, f"a=%zz{FORGED}".encode())

    forger = threading.Thread(target=forge)
    forger.start()
    try:
        yield
    finally:
        over.set()
        forger.join()


def _post_and_leave(port: int, kind: str | None, body: bytes) -> None:
    """Without waiting for the answer: a server that is loading gives none."""
    head = f"POST /predictions/model HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {kind}\r\n" if kind else ""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
