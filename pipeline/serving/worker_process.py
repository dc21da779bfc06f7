"""Runs one worker of TorchServe and reports its end: ``worker_process.py SOCKET PYTHON ARGUMENTS...``.

TorchServe starts this file in place of Python. Only a parent learns how a process ended, and TorchServe does
not pass it on; its logs cannot be used either, because clients can write into them. So two small processes
stand between the two:

    TorchServe ── front ── monitor ── worker

The monitor waits for the worker and sends its exit code and its last lines to marquee over SOCKET. TorchServe
kills its own child as soon as the worker's connection closes; that is the front, and the monitor lives on to
report. Where TorchServe kills the front while the worker lives (a call took too long), the monitor ends the
worker. This file needs nothing but the standard library and writes nothing to the disk, which may be full.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from typing import IO

KEPT_LINES = 300
LONGEST_LINE = 2000
READ_BYTES = 65536
# TorchServe's worker prints this before it reads a request (ts/protocol/otf_message_handler.py). What comes
# to standard output afterwards may hold a client's text, so it does not explain a death.
FIRST_REQUEST = b"Backend received inference at"
# A child of the worker may hold the pipes open after the worker has ended.
LAST_LINES_SECONDS = 1.0
# A worker whose load failed closes its connection first and then takes a while to unload torch.
OWN_END_SECONDS = 5.0
# A worker that has served ends at once when it crashes. One that is stuck must go before the next one loads.
SERVED_END_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
STDOUT, STDERR = 1, 2


class LastLines:
    """The worker's last lines from both of its outputs; from standard output only until the first request."""

    def __init__(self) -> None:
        self._lines: deque[tuple[bool, bytes]] = deque(maxlen=KEPT_LINES)
        self.served = False

    def hear(self, line: bytes, is_error: bool) -> None:
        """Take in one line."""
        if not is_error and line.startswith(FIRST_REQUEST):
            self.served = True
        if is_error or not self.served:
            self._lines.append((is_error, line[:LONGEST_LINE]))

    def text(self) -> list[str]:
        """The lines without their ends."""
        kept = [line for is_error, line in list(self._lines) if is_error or not self.served]
        return [line.decode("utf-8", "replace").rstrip("\r\n") for line in kept]


def main(socket_path: str, command: list[str]) -> int:
    """Run ``command`` to its end; returns its exit code, 128 + n for signal n as TorchServe expects it."""
    for number in (signal.SIGTERM, signal.SIGINT):  # they reach the worker too, which is waited for
        signal.signal(number, lambda *_: None)
    front_ended, front_lives = os.pipe()
    code_read, code_write = os.pipe()
    if os.fork() == 0:
        os.close(front_lives)
        os.close(code_read)
        code = monitor(socket_path, command, front_ended)
        os.write(code_write, str(code if code >= 0 else 128 - code).encode())
        return 0
    os.close(front_ended)
    os.close(code_write)
    return int(os.read(code_read, 16) or b"1")


def monitor(socket_path: str, command: list[str], front_ended: int) -> int:
    """Start the worker, wait for its end and report it; returns its exit code, -n for signal n.

    ``front_ended``: a pipe that is closed at its other end when TorchServe has killed this process's parent.
    """
    worker = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_end_with_parent
    )
    report = _connect(socket_path)
    _send(report, {"pid": worker.pid})
    lines, stopped = LastLines(), threading.Event()
    readers = [
        threading.Thread(target=_pass_on, args=(source, target, lines), daemon=True)
        for source, target in ((worker.stdout, STDOUT), (worker.stderr, STDERR))
    ]
    ender = threading.Thread(target=_end_with_front, args=(front_ended, worker, stopped, lines), daemon=True)
    for thread in (*readers, ender):
        thread.start()
    code = worker.wait()
    for reader in readers:
        reader.join(LAST_LINES_SECONDS)
    end = {"code": code, "stopped": stopped.is_set(), "served": lines.served, "lines": lines.text()}
    _send(report, end)
    return code


def _end_with_parent() -> None:
    # Where the monitor is killed, the kernel kills the worker too.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_front(
    front_ended: int, worker: subprocess.Popen[bytes], stopped: threading.Event, lines: LastLines
) -> None:
    os.read(front_ended, 1)
    _close_output()
    try:  # after a worker's own end the front is killed too: that end comes first
        worker.wait(SERVED_END_SECONDS if lines.served else OWN_END_SECONDS)
    except subprocess.TimeoutExpired:
        stopped.set()
        worker.kill()


def _close_output() -> None:
    """TorchServe must see the end of this worker's output now.

    It starts the next worker within a second, and an end that comes later counts as that worker's
    (WorkerLifeCycle, "Backend stream closed").
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (STDOUT, STDERR):
        os.dup2(nowhere, output)
    os.close(nowhere)


def _pass_on(source: IO[bytes], target: int, lines: LastLines) -> None:
    for line in iter(lambda: source.readline(READ_BYTES), b""):
        lines.hear(line, is_error=target == STDERR)
        try:
            os.write(target, line)
        except OSError:  # TorchServe has ended; the worker must not be blocked by a full pipe
            continue


def _connect(path: str) -> socket.socket | None:
    report = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        report.connect(path)
    except OSError:  # marquee has ended, and the session with it soon
        return None
    return report


def _send(report: socket.socket | None, message: dict[str, object]) -> None:
    if report is None:
        return
    try:
        report.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return


if __name__ == "__main__":
    # os._exit: a reader thread may still be blocked on a pipe that the worker's child holds.
    os._exit(main(sys.argv[1], sys.argv[2:]))
