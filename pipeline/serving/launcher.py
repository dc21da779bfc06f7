"""TorchServe's own launcher, run as ``python -m pipeline.serving.launcher``, that dies with who started it.

The parent holds the other end of standard input. When it ends in whatever way, kill -9 included, the read
returns and the whole process group goes: no server outlives its session.
"""

from __future__ import annotations

import os
import signal
import threading


def main() -> None:
    """Start TorchServe with this process's arguments and wait for its end."""
    from ts.model_server import start

    threading.Thread(target=_end_with_parent, daemon=True).start()
    start()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
