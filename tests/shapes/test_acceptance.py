"""The model's promise: all 224 prompts with fixed seeds, at the archive's default steps and guidance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from pipeline.shapes.known_right import DEMO, KNOWN_RIGHT
from pipeline.shapes.palette import all_captions
from pipeline.shapes.scores import Asked, Scores, draw_all, score

ARTIFACTS = Path(__file__).parents[2] / "model_artifacts"


def ask(questions: Sequence[Asked]) -> Scores:
    from diffusers import StableDiffusionPipeline

    defaults = yaml.safe_load((ARTIFACTS / "model-config.yaml").read_text())["marquee"]["defaults"]
    pipe = StableDiffusionPipeline.from_pretrained(ARTIFACTS / "shapes")
    pipe.set_progress_bar_config(disable=True)
    pictures = draw_all(pipe, questions, defaults["num_inference_steps"], defaults["guidance_scale"])
    return score(questions, pictures)


@pytest.mark.slow
def test_the_model_draws_what_it_is_asked() -> None:
    scores = ask([Asked(caption, seed) for seed, caption in enumerate(all_captions())])
    assert scores.foreground >= 0.95, scores.wrong
    assert scores.background >= 0.95, scores.wrong
    assert scores.shape >= 0.90, scores.wrong


@pytest.mark.slow
def test_the_known_right_questions_are_right() -> None:
    assert ask([*DEMO, *KNOWN_RIGHT]).wrong == []


def test_the_known_right_questions_differ_and_cover_the_words() -> None:
    assert len({str(one.caption) for one in DEMO}) == 8
    assert len({one.seed for one in KNOWN_RIGHT}) == len(KNOWN_RIGHT) == 32
    for questions in (DEMO, KNOWN_RIGHT):
        assert {one.caption.shape for one in questions} == {"circle", "square", "triangle", "star"}
        assert len({one.caption.foreground for one in questions}) == 8
        assert len({one.caption.background for one in questions}) == 8
