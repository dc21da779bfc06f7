"""A diffusers folder on disk as the archive's model/ members: checked whole, then renamed and cast."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.archive.families import family_of_unet, refusal
from pipeline.archive.layout import MODEL_FOLDER, Member, bytes_member, file_member
from pipeline.archive.regular import read_regular
from pipeline.archive.safetensors_files import (
    NotSafetensors,
    Rewrite,
    StoredTensor,
    TensorFile,
    cast_to,
    keep,
    read_tensor_file,
    rewritten_member,
)
from pipeline.archive.safety_checker import (
    CHECKER,
    CHECKER_CONFIG,
    EXTRACTOR,
    EXTRACTOR_CONFIG,
    SHIPPED_EXTRACTOR,
    content_problems,
    shipped_name,
)
from pipeline.archive.selection import INDEX, Dtype, Selection, Weights, select_files
from pipeline.archive.tokenizer_files import slow_files
from pipeline.errors import MarqueeError

DEEPEST = 3  # a model's own files lie one folder deep
MOST_FILES = 10_000
MOST_JSON_BYTES = 64 << 20
HALVES = ("F16", "BF16")
HALF_NAMES = ("float16", "bfloat16")
STORED_DTYPES = {"fp16": "F16", "fp32": "F32", "bf16": "BF16"}
# transformers 4 finds the text encoder's tensors only under this prefix; 5 reads both, saves without.
TEXT_PREFIX = "text_model."
TEXT_CONFIG = "text_encoder/config.json"
# A buffer that transformers before 4.31 saved and that every later one computes.
TEXT_LEFTOVER = "embeddings.position_ids"


def check_folder(folder: Path, dtype: Dtype, *, safety_checker: bool = False) -> Selection:
    """Select the files to pack; raises one MarqueeError that lists every problem of the folder."""
    names = file_names(folder)
    problems: list[str] = []

    def read_json(name: str) -> Any:
        try:
            return load_json(folder / name)
        except ValueError as error:
            problems.append(f"{name} is not JSON: {error}")
            return {}

    selection = select_files(names, read_json, dtype, safety_checker=safety_checker)
    problems += selection.problems
    documents = {name: read_json(name) for name in selection.configs if name.endswith(".json")}
    class_name = selection.index.get("_class_name")
    if family := family_of_unet(documents.get("unet/config.json"), class_name):
        problems.append(f"{refusal(family)} (unet/config.json says so)")
    problems += [
        f"{name} holds no object" for name, document in documents.items() if not isinstance(document, dict)
    ]
    problems += [
        _tensor_problem(folder, name)
        for weights in selection.weights
        for name in weights.files
        if name in names
    ]
    found = [problem for problem in problems if problem]
    if safety_checker and not found:
        stored = _stored_shapes(folder, selection, CHECKER)
        found += content_problems(documents[CHECKER_CONFIG], documents[EXTRACTOR_CONFIG], stored)
    if found:
        convert = f"{sys.executable} -m pipeline convert {shlex.quote(str(folder))}"
        raise MarqueeError(
            f"the model in {folder} cannot be packed:" + "".join(f"\n  - {problem}" for problem in found),
            cure=f"{convert}   (writes safetensors beside the pickles)"
            if selection.has_only_pickles
            else None,
        )
    return selection


def model_members(
    folder: Path, selection: Selection, dtype: Dtype, *, safety_checker: bool = False
) -> list[Member]:
    """The members below model/ for a checked selection."""
    index = _shipped_index(folder, selection.index, safety_checker)
    members = [bytes_member(f"{MODEL_FOLDER}/{INDEX}", index)]
    members += [_config_member(folder, name) for name in selection.configs]
    members += _missing_tokenizer_members(folder, selection)
    for weights in selection.weights:
        members += _weight_members(folder, weights, dtype)
    return members


def file_names(folder: Path) -> set[str]:
    """The regular files of a folder and of folders in it, relative to it.

    Raises MarqueeError where it cannot be read, or holds more than a model does.
    """
    names: set[str] = set()
    try:
        for place, folders, files in os.walk(folder, onerror=_raise):
            inner = Path(place).relative_to(folder)
            folders[:] = [] if len(inner.parts) >= DEEPEST else sorted(folders)
            names.update((inner / file).as_posix() for file in files if Path(place, file).is_file())
            if len(names) > MOST_FILES:
                raise MarqueeError(
                    f"{folder} holds more than {MOST_FILES:,} files, so it is not a model's folder",
                    "name the folder that holds model_index.json: --model DIR",
                )
    except OSError as error:
        raise MarqueeError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    return names


def _raise(error: OSError) -> None:
    raise error


def load_json(path: Path) -> Any:
    """A JSON file of at most 64 MiB; raises ValueError with what is wrong."""
    try:
        return json.loads(read_regular(path, MOST_JSON_BYTES))
    except MarqueeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _tensor_problem(folder: Path, name: str) -> str:
    try:
        read_tensor_file(folder / name)
    except NotSafetensors as error:
        return f"{name}: {error}"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return ""


def _stored_shapes(folder: Path, selection: Selection, component: str) -> dict[str, tuple[int, ...]]:
    """A component's tensors by their stored names."""
    files = [
        name for weights in selection.weights if weights.component == component for name in weights.files
    ]
    return {tensor.name: tensor.shape for name in files for tensor in read_tensor_file(folder / name).tensors}


def _shipped_index(folder: Path, index: Mapping[str, Any], safety_checker: bool) -> bytes:
    """model_index.json without the parts that are not packed; the same bytes where nothing changes."""
    dropped: dict[str, Any] = {CHECKER: [None, None], EXTRACTOR: [None, None]}
    if safety_checker:
        dropped = {EXTRACTOR: SHIPPED_EXTRACTOR}
    changes: dict[str, Any] = {
        name: value for name, value in dropped.items() if index.get(name, value) != value
    }
    if index.get("requires_safety_checker") and not safety_checker:
        changes["requires_safety_checker"] = False
    if not changes:
        return (folder / INDEX).read_bytes()
    return (json.dumps({**index, **changes}, indent=2) + "\n").encode()


def _config_member(folder: Path, name: str) -> Member:
    """A configuration, unchanged except for a half-precision text encoder's dtype, which becomes fp32."""
    path = f"{MODEL_FOLDER}/{name}"
    if name == TEXT_CONFIG:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        keys = ("dtype", "torch_dtype") if isinstance(config, dict) else ()
        if halves := {key: "float32" for key in keys if config.get(key) in HALF_NAMES}:
            return bytes_member(path, (json.dumps({**config, **halves}, indent=2) + "\n").encode())
    return file_member(path, folder / name)


def _missing_tokenizer_members(folder: Path, selection: Selection) -> list[Member]:
    if {"tokenizer/vocab.json", "tokenizer/merges.txt"} <= set(selection.configs):
        return []
    source = folder / "tokenizer/tokenizer.json"
    try:
        made = slow_files(json.loads(source.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MarqueeError(
            f"{source} holds no byte-pair vocabulary to make vocab.json from: {error}"
        ) from error
    return [
        bytes_member(f"{MODEL_FOLDER}/{name}", content)
        for name, content in made.items()
        if name not in selection.configs
    ]


def _weight_members(folder: Path, weights: Weights, dtype: Dtype) -> list[Member]:
    members, weight_map, total = [], {}, 0
    for number, name in enumerate(weights.files):
        file = read_tensor_file(folder / name)
        shipped = weights.shipped_name(number)
        rewrites = [
            rewrite for tensor in file.tensors if (rewrite := _rewrite(weights.component, tensor, dtype))
        ]
        members.append(_weight_member(f"{MODEL_FOLDER}/{shipped}", file, rewrites))
        weight_map.update({rewrite.name: Path(shipped).name for rewrite in rewrites})
        total += sum(rewrite.size for rewrite in rewrites)
    if len(weights.files) > 1:
        shard_list = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        path = f"{MODEL_FOLDER}/{weights.component}/{weights.stem}.safetensors.index.json"
        members.append(bytes_member(path, (json.dumps(shard_list, indent=2) + "\n").encode()))
    return members


def _weight_member(path: str, file: TensorFile, rewrites: list[Rewrite]) -> Member:
    if rewrites == [keep(tensor) for tensor in file.tensors]:
        return file_member(path, file.path)
    return rewritten_member(path, file, rewrites)


def _rewrite(component: str, tensor: StoredTensor, dtype: Dtype) -> Rewrite | None:
    """What ships of one tensor; None for a leftover.

    A text encoder in half precision ships as fp32, a kept one too: plain ``from_pretrained`` reads it in
    its own dtype under transformers 5 but the other parts in fp32, and that mix crashes. It is a ninth of
    SD 1.5's weights.
    """
    rewrite = keep(tensor)
    if component == "text_encoder":
        bare = tensor.name.removeprefix(TEXT_PREFIX)
        if bare == TEXT_LEFTOVER:
            return None
        rewrite = Rewrite(tensor, TEXT_PREFIX + bare, "F32" if tensor.dtype in HALVES else tensor.dtype)
    if component == CHECKER:
        name = shipped_name(tensor.name)
        if name is None:
            return None
        rewrite = Rewrite(tensor, name, tensor.dtype)
    if dtype == "keep":
        return rewrite
    return cast_to(rewrite, "F32" if component == "text_encoder" else STORED_DTYPES[dtype])
