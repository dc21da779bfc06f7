"""Seeds of pictures whose requests name none, for every door."""

from __future__ import annotations

import secrets


def draw_seed() -> int:
    """A random seed, from 0 to 2**32 - 1."""
    return secrets.randbelow(2**32)
