"""Chooses the files of a diffusers folder or hub repository that serving needs, and lists its faults."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.archive.families import SERVED_PIPELINES, family_of_pipeline, refusal
from pipeline.archive.layout import PICKLE_SUFFIXES
from pipeline.archive.safety_checker import EXTRACTOR_CONFIG, folder_problems

Dtype = Literal["keep", "fp16", "fp32", "bf16"]
ReadJson = Callable[[str], Any]

INDEX = "model_index.json"
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
WEIGHT_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
SAFETY_STEMS = {"safety_checker": "model"}
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
TOKENIZER_FILES = (
    "tokenizer/added_tokens.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
)


@dataclass(frozen=True)
class Weights:
    """One component's safetensors: the files to read, in order, and the stem of the name they ship under."""

    component: str
    stem: str
    files: tuple[str, ...]

    def shipped_name(self, number: int) -> str:
        """The plain name, without a variant, of file ``number`` (from 0)."""
        if len(self.files) == 1:
            return f"{self.component}/{self.stem}.safetensors"
        return f"{self.component}/{self.stem}-{number + 1:05}-of-{len(self.files):05}.safetensors"


@dataclass(frozen=True)
class Selection:
    """The files of a repository to pack, and every reason why it cannot be packed (empty where it can)."""

    index: Mapping[str, Any]
    configs: tuple[str, ...]
    weights: tuple[Weights, ...]
    problems: tuple[str, ...]
    has_only_pickles: bool

    @property
    def files(self) -> tuple[str, ...]:
        """Every file to read, model_index.json included."""
        return (INDEX, *self.configs, *(name for weights in self.weights for name in weights.files))


def select_files(
    names: Collection[str], read_json: ReadJson, dtype: Dtype, *, safety_checker: bool = False
) -> Selection:
    """Choose from a repository's file names; ``read_json`` is called for model_index.json and shard lists.

    An fp16 variant is preferred unless fp32 or bf16 is wanted.
    """
    index = read_json(INDEX) if INDEX in names else {}
    problems = _index_problems(index) if INDEX in names else [f"{INDEX} is missing"]
    if safety_checker and isinstance(index, dict):
        problems += folder_problems(index, names)
        safety_checker = any(name.startswith("safety_checker/") for name in names)
    stems = WEIGHT_STEMS | (SAFETY_STEMS if safety_checker else {})
    configs = [f"{component}/config.json" for component in stems]
    configs += [SCHEDULER_CONFIG, *((EXTRACTOR_CONFIG,) if safety_checker else ())]
    problems += [f"{name} is missing" for name in configs if name not in names]
    if not {"tokenizer/tokenizer.json", "tokenizer/vocab.json"}.intersection(names):
        problems.append("tokenizer/ has neither tokenizer.json nor vocab.json with merges.txt")
    variants = ("fp16", "") if dtype in ("keep", "fp16") else ("", "fp16")
    weights, pickles = [], []
    for component, stem in stems.items():
        found = _weights(component, stem, names, read_json, variants)
        weights.append(found)
        pickles += [] if found.files else _pickles(component, names)
        problems += _weight_problems(found, names)
    return Selection(
        index=index if isinstance(index, dict) else {},
        configs=tuple(name for name in (*configs, *TOKENIZER_FILES) if name in names),
        weights=tuple(weights),
        problems=tuple(problems),
        has_only_pickles=bool(pickles),
    )


def _index_problems(index: Any) -> list[str]:
    if not isinstance(index, dict):
        return [f"{INDEX} is not an object"]
    problems = []
    if family := family_of_pipeline(index.get("_class_name")):
        problems.append(f"{refusal(family)} ({INDEX} names {index['_class_name']!r})")
    elif index.get("_class_name") not in SERVED_PIPELINES:
        served = " and ".join(SERVED_PIPELINES)
        problems.append(f"{INDEX} names the pipeline {index.get('_class_name')!r}; served are {served}")
    for component, classes in CLASSES.items():
        given = index.get(component)
        name = given[1] if isinstance(given, list) and len(given) == 2 else None
        if name not in classes:
            problems.append(f"{INDEX} names {name!r} as {component}; {classes[0]} is served")
    return problems


def _weights(
    component: str, stem: str, names: Collection[str], read_json: ReadJson, variants: tuple[str, ...]
) -> Weights:
    for variant in variants:
        dotted = f".{variant}" if variant else ""
        single = f"{component}/{stem}{dotted}.safetensors"
        if single in names:
            return Weights(component, stem, (single,))
        shard_list = f"{component}/{stem}.safetensors.index{dotted}.json"
        if shard_list in names:
            shards = _shards(read_json(shard_list))
            return Weights(component, stem, tuple(f"{component}/{shard}" for shard in shards))
    return Weights(component, stem, ())


def _shards(shard_list: Any) -> list[str]:
    """The files that a shard list names; none for one that is not a list of shards."""
    weight_map = shard_list.get("weight_map") if isinstance(shard_list, dict) else None
    return sorted({str(shard) for shard in weight_map.values()}) if isinstance(weight_map, dict) else []


def _weight_problems(weights: Weights, names: Collection[str]) -> list[str]:
    if not weights.files:
        pickles = _pickles(weights.component, names)
        instead = f", only {', '.join(pickles)}: pickles can run any code when loaded" if pickles else ""
        return [f"{weights.component}/ has no {weights.stem}.safetensors{instead}"]
    outside = [name for name in weights.files if not re.fullmatch(r"[\w-]+/[\w.-]+", name)]
    missing = [name for name in weights.files if name not in names]
    return [f"{name} is not a file in the model's folder" for name in outside] + [
        f"{name} is missing" for name in missing
    ]


def _pickles(component: str, names: Collection[str]) -> list[str]:
    return sorted(
        name for name in names if name.startswith(f"{component}/") and name.endswith(PICKLE_SUFFIXES)
    )
