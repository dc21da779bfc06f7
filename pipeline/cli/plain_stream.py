"""stdout and stderr that escape control characters and characters that the encoding lacks."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from pipeline.errors import MarqueeError
from pipeline.plain_text import escaped

_READER_GONE = 141  # 128 + SIGPIPE, as a shell says it


class PlainStream:
    """A text stream that escapes control characters.

    When its reader has gone it ends the program with exit code 141 and writes nothing more, so that the
    command can clean up undisturbed. Raises MarqueeError when the output cannot be written.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw
        self._gone = False

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, not {type(text).__name__}")
        if text and not self._gone:  # click writes "" to examine a stream, and hides the errors
            with _translating_os_errors(self):
                self.raw.write(_encodable(escaped(text), self.raw))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._gone:
            with _translating_os_errors(self):
                self.raw.flush()

    def silence(self) -> None:
        """Write nothing more and drop the buffered text, so that the exit does not fail on it."""
        self._gone = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.raw.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def _translating_os_errors(stream: PlainStream) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        stream.silence()
        raise SystemExit(_READER_GONE) from None
    except OSError as error:
        stream.silence()
        reason = error.strerror or errno.errorcode.get(error.errno or 0, "unknown")
        raise MarqueeError(f"the output cannot be written: {reason}", "free some space") from error


def _encodable(text: str, raw: TextIO) -> str:
    encoding = raw.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def showing_plain_text() -> Iterator[list[PlainStream]]:
    """Replace stdout and stderr by PlainStreams while the block runs. Yields the streams that exist."""
    out, err = sys.stdout, sys.stderr
    made = [PlainStream(stream) for stream in (out, err) if stream is not None]
    for name, stream in (("stdout", out), ("stderr", err)):
        if stream is not None:
            setattr(sys, name, next(one for one in made if one.raw is stream))
    try:
        yield made
    finally:
        sys.stdout, sys.stderr = out, err


def unescaped_stderr() -> TextIO:
    """The real stderr, for progress bars, which move the cursor; their texts are escaped beforehand."""
    return sys.stderr.raw if isinstance(sys.stderr, PlainStream) else sys.stderr
