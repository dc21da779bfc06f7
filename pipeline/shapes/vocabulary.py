"""A byte-pair vocabulary of the caption words, in the files that CLIPTokenizer reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.shapes.networks import TEXT_POSITIONS
from pipeline.shapes.palette import all_captions

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def _learn_merges(sentences: list[str]) -> list[tuple[str, str]]:
    # Learned, not written by hand: the pairs of one word would break another.
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(
        sentences, trainers.BpeTrainer(vocab_size=2000, end_of_word_suffix=_WORD_END, show_progress=False)
    )
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def write_vocabulary(folder: Path) -> None:
    """Write vocab.json and merges.txt: 512 byte forms, so that any text has tokens, then the merges."""
    from tokenizers import pre_tokenizers

    merges = _learn_merges([str(caption) for caption in all_captions()])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = letters + [letter + _WORD_END for letter in letters] + [a + b for a, b in merges] + [_START, _END]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a folder that write_vocabulary made; texts are cut at TEXT_POSITIONS tokens."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        unk_token=_END,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=TEXT_POSITIONS,
    )
