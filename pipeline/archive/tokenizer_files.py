"""The tokenizer's vocabulary in the form that older transformers read."""

from __future__ import annotations

import json
from typing import Any


def slow_files(tokenizer_json: Any) -> dict[str, bytes]:
    """vocab.json and merges.txt from a parsed tokenizer.json, by path in the model folder.

    transformers 5 saves only tokenizer.json, and 4.57's CLIPTokenizer cannot start from it. Raises
    KeyError or TypeError where it is not a byte-pair vocabulary.
    """
    model = tokenizer_json["model"]
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
    return {
        "tokenizer/vocab.json": json.dumps(model["vocab"], ensure_ascii=False).encode(),
        "tokenizer/merges.txt": ("\n".join(["#version: 0.2", *merges]) + "\n").encode(),
    }
