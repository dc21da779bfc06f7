"""Runs a command: prints errors, chooses the exit code, and writes marquee's own faults to a file."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from typer import Abort, TyperException

from pipeline.cli.plain_stream import showing_plain_text
from pipeline.errors import MarqueeError
from pipeline.plain_text import one_line

FAILED, MISUSED, WITHHELD, OUR_FAULT, INTERRUPTED = 1, 2, 3, 70, 130
EXIT_CODES = """Exit codes: 0 done. 1 an error, which is named with its cure; a problem that was found; a
check that failed. 2 the command line is wrong. 3 or 4 a deployment is undecided, because the new model was
not reached in time (3) or there was no answer (4); run the command again. 3 from `predict`: the server's
safety checker flagged a picture, which is withheld; the others are written. 70 a fault of marquee's own; the
message names the file with its traceback. 130 Ctrl-C. 141 the reader of the output went away. 143 ended by
SIGTERM. `cloud run` ends with its program's exit code."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST_MESSAGE = 500


def run(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; a failure is printed on stderr without a traceback."""
    with showing_plain_text() as streams:
        try:
            code = _code(app, arguments)
            for stream in streams:
                stream.flush()
        except SystemExit as closed:  # the last flush found that the reader had gone
            code = _number(closed.code)
        except MarqueeError as error:
            code = _tell(str(error), error.cure)
    return code


def _code(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    try:
        return _number(app(args=list(arguments), prog_name="marquee", standalone_mode=False))
    except SystemExit as done:
        return _number(done.code)
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except MarqueeError as error:
        return _tell(_on_its_lines(str(error), arguments), _on_its_lines(error.cure or "", arguments))
    except TyperException as error:
        return _misused(error)
    except Exception as error:  # the one place that catches everything
        if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL):
            message, cure = _circumstance(error)
            return _tell(_on_its_lines(message, arguments), cure)
        return _own_fault(error, arguments)


def _number(code: Any) -> int:
    """An exit code as sys.exit takes it; a text is an error's message."""
    if isinstance(code, str):
        return _tell(code, None)
    return code if isinstance(code, int) else 0


def _on_its_lines(message: str, arguments: Sequence[str]) -> str:
    """The message with the user's line ends escaped, which could otherwise imitate one of our lines."""
    for argument in arguments:
        for typed in (argument, argument.partition("=")[2], argument.partition("=")[0]):
            if "\n" in typed:
                message = message.replace(typed, one_line(typed))
    return message


def _tell(message: str, cure: str | None, code: int = FAILED) -> int:
    print(f"error: {message}", file=sys.stderr)
    if cure:
        print(f"  cure: {cure}", file=sys.stderr)
    return code


def _misused(error: TyperException) -> int:
    """Report a command line that the parser refuses; without any command print the help."""
    context = getattr(error, "ctx", None)
    message = getattr(error, "format_message", error.__str__)()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)
        return MISUSED
    cure = f"{context.command_path} --help" if context is not None else "marquee --help"
    return _tell(one_line(" ".join(message.split())), cure, getattr(error, "exit_code", MISUSED))


def _circumstance(error: OSError) -> tuple[str, str]:
    """Message and cure for an error of the file system that no command reports itself."""
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return f"{error.filename or 'a file'} cannot be written: {reason}", "free some space"
    return f"{error.filename} cannot be used: {reason}", "check the path and its permissions"


def _own_fault(error: Exception, arguments: Sequence[str]) -> int:
    message = _without_secrets(str(error), arguments)
    kind = type(error).__name__ + (f": {message}" if message else "")
    log = _write_log(_trace(error, arguments))
    cure = f"report it with {log}" if log else "report it; the traceback could not be written to a file"
    return _tell(f"this is a fault of marquee's own ({kind})", cure, OUR_FAULT)


def _trace(error: Exception, arguments: Sequence[str]) -> str:
    """The traceback, innermost exception last, without the user's arguments, such as prompts."""
    parts = []
    link: BaseException | None = error
    while link is not None:
        message = _without_secrets(str(link), arguments)
        parts.append(f"{''.join(traceback.format_tb(link.__traceback__))}{type(link).__name__}: {message}\n")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\nThen:\n\n".join(reversed(parts))


def _without_secrets(message: str, arguments: Sequence[str]) -> str:
    for argument in sorted({one for one in arguments if len(one) > 2}, key=len, reverse=True):
        message = message.replace(argument, "<argument>")
    message = re.sub(r"(?i)bearer\s+\S+|ya29\.\S+", "<token>", message)
    return one_line(message, _LONGEST_MESSAGE)


def _write_log(text: str) -> Path | None:
    """A new file that only this user can read, in ~/.marquee/errors or else in the temporary folder."""
    stamp = time.strftime("%Y%m%dT%H%M%S-")
    for folder in (Path(os.path.expanduser("~")) / ".marquee" / "errors", Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(prefix=stamp, suffix=".log", dir=folder)
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return Path(name)
    return None
