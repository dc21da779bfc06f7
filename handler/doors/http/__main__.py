"""``python -m handler.doors.http --root FOLDER --port 8080``: serves an unpacked archive by its own code."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from handler.model.vendored import use_vendored


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal; returns 0, 1 where the archive cannot be loaded, or 2 for a wrong option."""
    options = _options(arguments)
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)
    if not options.log_requests:
        logging.getLogger("marquee.requests").setLevel(logging.WARNING)
    if options.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    use_vendored(options.root)
    return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    # Here, after the archive's own packages are in place.
    from handler.contract.settings import SettingsError, load_settings
    from handler.doors.http.application import make_application
    from handler.doors.http.desk import Desk
    from handler.doors.http.engine_here import open_here
    from handler.doors.http.guards import read_guards
    from handler.doors.http.serve import listen, run

    try:
        settings = load_settings(options.root / "model-config.yaml")
        desk = Desk(settings, options.model_name)
        application = make_application(desk, read_guards(os.environ, options.bind), os.environ)
        listener = listen(options.bind, options.port)
    except (SettingsError, ValueError, OSError) as error:
        logging.error("marquee cannot serve: %s", error)
        return 2
    logging.info("marquee listens on %s port %d", options.bind, listener.getsockname()[1])
    load = partial(open_here, options.root, settings, options.gpu)
    loaded = asyncio.run(run(application, desk, listener, load))
    desk.close()
    return 0 if loaded else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m handler.doors.http", description=__doc__)
    port = int(os.environ.get("AIP_HTTP_PORT", "8080"))
    parser.add_argument("--root", type=Path, required=True, help="the folder of the unpacked archive")
    parser.add_argument("--bind", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=port, help="0 takes a free one")
    parser.add_argument("--model-name", default="model", help="the model's name in addresses")
    parser.add_argument("--gpu", type=int, help="the number of the GPU; the first if not given")
    parser.add_argument("--log-requests", action="store_true", help="a line of JSON per request")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input closes")
    return parser.parse_args(arguments)


def _end_with_stdin() -> None:
    """The program that started this process holds the other end, so this one ends with it."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
