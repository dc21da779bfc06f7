"""A private folder with a short path for the Unix sockets of one server.

The path of a Unix socket has 107 bytes at most (103 on macOS). A work folder may lie deeper, on macOS or in
CI; everything but the sockets stays there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline.errors import MarqueeError
from pipeline.serving.work_folder import PREFIX, WorkFolder, make_work_folder

MANAGEMENT_SOCKET = "management.sock"
INFERENCE_SOCKET = "inference.sock"
WORKER_SOCKET = "workers.sock"
# A link to the server's temporary folder. TorchServe makes the sockets of its workers in that one, and has no
# setting for another place.
TEMPORARY = "temp"
LONGEST_NAME = f"{TEMPORARY}/.ts.sock.65535"
LONGEST_SOCKET_PATH = 103  # sun_path with its closing zero: 108 bytes on Linux, 104 on macOS
_RANDOM = 8  # characters that mkdtemp adds
# Where there is no short TMPDIR: the first of these that can be written.
SHORT_PLACES = ("/tmp", "/dev/shm", "/var/tmp")


def make_socket_folder(temporary: Path) -> WorkFolder:
    """A new folder (0700), in the temporary folder where its path is short enough, in /tmp otherwise.

    ``temporary``: the server's own temporary folder; the new one links to it. Raises MarqueeError where no
    folder can be made.
    """
    failures = []
    for place in socket_places():
        try:
            made = make_work_folder(place)
        except MarqueeError as error:
            failures.append(str(error))
            continue
        (made.path / TEMPORARY).symlink_to(temporary.absolute())
        return made
    raise MarqueeError(
        "\n".join(["there is no place for the server's Unix sockets", *failures]),
        "set TMPDIR to a folder with a short path that can be written",
    )


def socket_places() -> list[Path]:
    """Every folder in which the sockets' folder may be made, the first choice first; also swept."""
    places = [Path(tempfile.gettempdir()), *map(Path, SHORT_PLACES)]
    return [place for place in dict.fromkeys(places) if _fits(place)]


def _fits(place: Path) -> bool:
    longest = place / (PREFIX + "x" * _RANDOM) / LONGEST_NAME
    return len(str(longest).encode()) <= LONGEST_SOCKET_PATH
