"""Score the committed weights and draw their contact sheet: ``python -m pipeline.shapes.report``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from pipeline.shapes.contact_sheet import make_contact_sheet
from pipeline.shapes.palette import all_captions, varied_captions
from pipeline.shapes.scores import Asked, draw_all, score
from pipeline.shapes.train import MODEL

SHEET = Path("docs/shapes.png")


def report(model: Path, steps: int, guidance: float, sheet: Path) -> str:
    """Draw all 224 captions, caption i with seed i; save a contact sheet and return the scores as text."""
    import diffusers

    kind: Any = diffusers.StableDiffusionPipeline
    pipe = kind.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    asked = [Asked(caption, seed) for seed, caption in enumerate(all_captions())]
    began = time.monotonic()
    pictures = draw_all(pipe, asked, steps, guidance)
    spent = time.monotonic() - began
    scores = score(asked, pictures)
    drawn = {one.caption: picture for one, picture in zip(asked, pictures, strict=True)}
    make_contact_sheet([drawn[caption] for caption in varied_captions()]).save(sheet, optimize=True)
    lines = [f"wrong: {one.caption}, seed {one.seed}: {seen}" for one, seen in scores.wrong]
    lines.append(
        f"{steps} steps, guidance {guidance}: foreground {scores.foreground:.1%}, "
        f"background {scores.background:.1%}, shape {scores.shape:.1%}; {spent:.0f} s"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["15", "1.5"]
    sys.stdout.write(report(MODEL, int(chosen[0]), float(chosen[1]), SHEET) + "\n")
