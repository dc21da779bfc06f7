"""Every error a user can meet is a MarqueeError; the CLI prints it and exits, nobody else catches it.

MarqueeError          one sentence that names the thing, its value and what would be right, and its cure
"""

from __future__ import annotations


class MarqueeError(Exception):
    """A mistake or a broken circumstance the user can do something about.

    ``str(error)`` is one sentence; ``cure`` is one line that says what to do, None where the sentence does.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.cure = cure
