"""TorchServe's own launcher, run as ``python -m pipeline.serving.launcher PROGRAM ...``.

TorchServe starts its workers with PROGRAM in place of Python (see worker_process.py).

The parent holds the other end of standard input. When it ends in whatever way, kill -9 included, the read
returns and the whole process group goes: no server outlives its session.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """Start TorchServe with this process's other arguments and wait for its end."""
    from ts.model_server import start

    sys.executable = sys.argv.pop(1)  # what start() hands to Java as --python
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
