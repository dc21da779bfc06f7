"""Makes text from outside safe for a terminal: control characters are written out as escapes."""

from __future__ import annotations

import unicodedata

# Controls (terminal escapes), invisible formats (text direction), lone surrogates, line and paragraph ends.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escaped(text: str, keep: str = "\n\t") -> str:
    """``text`` with each control character of a terminal written out (``\\x1b``), except those in ``keep``.

    Without its line ends (``keep=""``) a text cannot pretend to be another line of ours.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in _UNSHOWN
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def one_line(text: str, longest: int = 1000) -> str:
    """``text`` escaped, on one line, with at most ``longest`` of its characters."""
    cut = text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"
    return escaped(cut, keep="")
