"""The safety checker that ``--safety-checker`` packs: diffusers' class, its CLIP, and the input they want."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.archive.layout import CONFIG_FILE
from pipeline.archive.plain_yaml import read_mapping
from pipeline.errors import MarqueeError

CHECKER, EXTRACTOR = "safety_checker", "feature_extractor"
CHECKER_CONFIG = f"{CHECKER}/config.json"
EXTRACTOR_CONFIG = f"{EXTRACTOR}/preprocessor_config.json"
CLASSES = {
    CHECKER: ("StableDiffusionSafetyChecker",),
    EXTRACTOR: (
        "CLIPImageProcessor",
        "CLIPFeatureExtractor",
        "CLIPImageProcessorFast",
        "CLIPImageProcessorPil",
    ),
}
SHIPPED_EXTRACTOR = ["transformers", "CLIPImageProcessor"]
"""What the archive's index names: transformers 4 and 5 have this one."""
DEFAULT_ACTION = "blur"
"""The handler's, where model-config.yaml says nothing (handler/contract/safety.py)."""

# transformers 4 finds CLIP's tensors below the second prefix only; 5 reads both.
PREFIXES = ("vision_model.", "vision_model.vision_model.")
# A buffer that transformers before 4.31 saved and that every later one computes.
LEFTOVER = "embeddings.position_ids"
MOST_LAYERS, MOST_SIDE = 200, 1 << 20
CONCEPTS, SPECIAL_CARE = 17, 3  # StableDiffusionSafetyChecker's own numbers
# CLIPVisionConfig's defaults: transformers leaves out of a file what is one of them.
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
PROJECTION = 512

Shape = tuple[int, ...]


def folder_problems(index: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Why a model's file names and index promise no checker; one sentence where it has none at all."""
    if not any(name.startswith(f"{CHECKER}/") for name in names):
        return [f"there is no folder {CHECKER}/ in it, so --safety-checker has nothing to pack"]
    problems = []
    for part, classes in CLASSES.items():
        given = index.get(part)
        name = given[1] if isinstance(given, list) and len(given) == 2 else None
        if name not in classes:
            problems.append(f"model_index.json names {name!r} as {part}; {classes[0]} is served")
    return problems


def shipped_name(stored: str) -> str | None:
    """What a tensor of the checker is called in the archive; None for a leftover."""
    short, long = PREFIXES
    prefix = long if stored.startswith(long) else short
    if not stored.startswith(prefix):
        return stored
    bare = stored.removeprefix(prefix)
    return None if bare == LEFTOVER else long + bare


def content_problems(config: Any, extractor: Any, stored: Mapping[str, Shape]) -> Iterator[str]:
    """Why the checker could not be loaded or could not look at a picture; ``stored`` are all its tensors."""
    vision = _vision(config)
    wrong = [name for name, value in vision.items() if type(value) is not int or not 1 <= value <= MOST_SIDE]
    if wrong or vision["num_hidden_layers"] > MOST_LAYERS or vision["patch_size"] > vision["image_size"]:
        size = (wrong or ["num_hidden_layers"])[0]
        yield f"{CHECKER_CONFIG} says {size} {str(vision[size])[:50]}, which is no size of a CLIP"
        return
    expected = tensor_shapes(vision)
    found = {name: shape for one, shape in stored.items() if (name := shipped_name(one)) is not None}
    missing = sorted(expected.keys() - found.keys())
    if missing:
        yield f"{CHECKER}/ lacks {len(missing)} of {len(expected)} tensors: {_some(missing)}"
    if extra := sorted(found.keys() - expected.keys()):
        yield f"{CHECKER}/ holds what its config.json does not describe: {_some(extra)}"
    for name in sorted(expected.keys() & found.keys()):
        if found[name] != expected[name]:
            yield f"{CHECKER}/: {name} has shape {found[name]}; its config.json describes {expected[name]}"
            break
    side = (vision["image_size"], vision["image_size"])
    if (made := _made(extractor)) != side:
        yield f"{EXTRACTOR_CONFIG} crops pictures to {made}; {CHECKER_CONFIG} asks for {side}"


def tensor_shapes(vision: Mapping[str, int]) -> dict[str, Shape]:
    """All tensors of StableDiffusionSafetyChecker by the names they ship under, for CLIP's sizes."""
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    projection = vision["projection_dim"]
    shapes: dict[str, Shape] = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, vision["num_channels"], patch, patch),
        "embeddings.position_embedding.weight": ((vision["image_size"] // patch) ** 2 + 1, width),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        shapes.update({f"{norm}.weight": (width,), f"{norm}.bias": (width,)})
    for layer in (f"encoder.layers.{number}" for number in range(vision["num_hidden_layers"])):
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes[f"{layer}.self_attn.{name}.weight"] = (width, width)
            shapes[f"{layer}.self_attn.{name}.bias"] = (width,)
        for name in ("layer_norm1", "layer_norm2"):
            shapes.update({f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)})
        shapes.update({f"{layer}.mlp.fc1.weight": (inner, width), f"{layer}.mlp.fc1.bias": (inner,)})
        shapes.update({f"{layer}.mlp.fc2.weight": (width, inner), f"{layer}.mlp.fc2.bias": (width,)})
    return {
        **{PREFIXES[1] + name: shape for name, shape in shapes.items()},
        "visual_projection.weight": (projection, width),
        "concept_embeds": (CONCEPTS, projection),
        "special_care_embeds": (SPECIAL_CARE, projection),
        "concept_embeds_weights": (CONCEPTS,),
        "special_care_embeds_weights": (SPECIAL_CARE,),
    }


def check_setting(settings: bytes, packed: bool) -> None:
    """Raises MarqueeError where model-config.yaml says what is done with pictures that nobody checks."""
    own = read_mapping(settings).get("marquee")
    if isinstance(own, dict) and "safety" in own and not packed:
        raise MarqueeError(
            f"{CONFIG_FILE} sets marquee.safety to {str(own['safety'])[:100]}, and no checker is packed",
            "add --safety-checker, or take marquee.safety out",
        )


def _vision(config: Any) -> dict[str, Any]:
    """CLIP's sizes as transformers reads them from the checker's config.json."""
    config = config if isinstance(config, dict) else {}
    given: dict[str, Any] = {}
    for key in ("vision_config", "vision_config_dict"):  # the second, of old files, wins
        part = config.get(key)
        given.update(part if isinstance(part, dict) else {})
    sizes = {name: given.get(name, default) for name, default in VISION.items()}
    return {**sizes, "projection_dim": config.get("projection_dim", PROJECTION)}


def _made(extractor: Any) -> tuple[Any, Any]:
    """Height and width in pixels of what the extractor makes; CLIP's 224 where it does not say."""
    crop = extractor.get("crop_size", 224) if isinstance(extractor, dict) else None
    if isinstance(crop, dict):
        return crop.get("height"), crop.get("width")
    return crop, crop


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
