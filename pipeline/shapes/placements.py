"""Where the shapes of the training pictures lie: in the middle, small anywhere, or small in one half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.shapes.drawing import SIZE, Placement, random_placement

if TYPE_CHECKING:
    import numpy as np

Half = Literal["right", "left", "lower", "upper"]
HALVES: tuple[Half, ...] = ("right", "left", "lower", "upper")
_REACH = 1.3  # how far the corners of a shape reach over its radius, with a little room


def small_placement(random: np.random.Generator) -> Placement:
    """Anywhere in the picture, radius 10 to 14 pixels."""
    radius = random.uniform(10, 14)
    x, y = random.uniform(_REACH * radius, SIZE - _REACH * radius, 2)
    return Placement(float(x), float(y), float(radius))


def placement_in(half: Half, random: np.random.Generator) -> Placement:
    """Inside one half of the picture, radius 10 to 12 pixels."""
    radius = float(random.uniform(10, 12))
    room = 1.28 * radius
    across = float(random.uniform(SIZE / 2 + room, SIZE - room + 1))
    along = float(random.uniform(room, SIZE - room))
    x, y = {
        "right": (across, along),
        "left": (SIZE - across, along),
        "lower": (along, across),
        "upper": (along, SIZE - across),
    }[half]
    return Placement(x, y, radius)


@dataclass(frozen=True)
class Places:
    """The placements of the training pictures: those in the middle, small ones, then those of each half."""

    middle: int
    small: int
    half: int

    def __len__(self) -> int:
        return self.middle + self.small + len(HALVES) * self.half

    def within(self, half: Half) -> range:
        """The numbers of the placements inside a half."""
        first = self.middle + self.small + HALVES.index(half) * self.half
        return range(first, first + self.half)

    def draw(self, random: np.random.Generator) -> list[Placement]:
        """All of them."""
        return [
            *(random_placement(random) for _ in range(self.middle)),
            *(small_placement(random) for _ in range(self.small)),
            *(placement_in(half, random) for half in HALVES for _ in range(self.half)),
        ]
