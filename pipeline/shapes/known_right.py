"""Questions that the committed weights answer right under every scheduler, for the demo and for other tests.

Seen right with 15 steps and guidance 1.5 under PNDM, DDIM, Euler, Euler ancestral, DPM++ 2M, UniPC and LCM.
"""

from __future__ import annotations

from pipeline.shapes.palette import Caption, varied_captions
from pipeline.shapes.scores import Asked

# Every colour twice and every shape twice.
DEMO = (
    Asked(Caption("red", "circle", "blue"), 1),
    Asked(Caption("green", "star", "black"), 2),
    Asked(Caption("blue", "square", "yellow"), 3),
    Asked(Caption("yellow", "triangle", "purple"), 4),
    Asked(Caption("purple", "circle", "white"), 5),
    Asked(Caption("orange", "star", "green"), 6),
    Asked(Caption("white", "square", "red"), 7),
    Asked(Caption("black", "triangle", "orange"), 8),
)
KNOWN_RIGHT = tuple(Asked(caption, 1000 + number) for number, caption in enumerate(varied_captions()))
