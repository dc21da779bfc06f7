"""Every error a user can meet is a MarqueeError; only the CLI catches it, prints it and exits.

MarqueeError          one sentence that names the thing, its value and what would be right, and its cure
"""

from __future__ import annotations


class MarqueeError(Exception):
    """An error that the user can do something about.

    ``str(error)`` is one sentence; ``cure`` is one line of advice, None where the sentence already gives it.
    A traceback of an uncaught error shows the cure below the sentence, as a note (PEP 678).
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.cure = cure
        if cure:
            # mypy checks both programs as Python 3.9, which has no notes; this one needs 3.11.
            self.add_note(f"cure: {cure}")  # type: ignore[attr-defined]
