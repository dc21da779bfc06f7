"""The archive's model-config.yaml: given or derived, and checked by the handler that will read it."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.archive.layout import CONFIG_FILE
from pipeline.archive.plain_yaml import MAX_YAML_BYTES, NotPlain, read_mapping
from pipeline.archive.regular import read_regular
from pipeline.errors import MarqueeError

CHECK_TIMEOUT_SECONDS = 60
LARGEST_BLOCKS = 8
LARGEST_SIDE = 8192
MODEL_SUFFIXES = (".json", ".safetensors", ".txt")
CONTINUOUS_BATCHING = "continuousBatching"
# Requests TorchServe may hand to the engine for each picture drawn at a time: it queues them by deadline.
REQUESTS_PER_PLACE = 6
# The most places that max_batch: auto chooses (handler/contract/settings.py); strict mode measures nothing.
AUTO_PLACES, STRICT_PLACES = 32, 8
# The handler package is a separate program, so its own parser runs in a process of its own.
CHECK = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from handler.contract.settings import SettingsError, parse_settings
try:
    parse_settings(json.load(sys.stdin))
except SettingsError as error:
    sys.exit(str(error))
"""
SERVING = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 8,
    "maxBatchDelay": 20,
    # One picture of Stable Diffusion 1.5 takes minutes on two CPU cores (30 steps, 512x512).
    "responseTimeout": 1200,
    "startupTimeout": 600,
    "maxRetryTimeoutInSec": 60,
    "jobQueueSize": 64,
}

# Each worker holds the whole model; the other limits keep within what Java's int and a day can hold.
MOST = {
    "minWorkers": 64,
    "maxWorkers": 64,
    "batchSize": 10_000,
    "maxBatchDelay": 3_600_000,
    "responseTimeout": 86_400,
    "startupTimeout": 86_400,
    "maxRetryTimeoutInSec": 86_400,
    "jobQueueSize": 1_000_000,
}


def config_bytes(folder: Path, given: Path | None, embedded: Path, handler: Path) -> bytes:
    """The content of model-config.yaml for the model in ``folder``.

    ``given`` wins; then the model folder's own; for the embedded model, in whatever folder its files
    lie, the one beside ``embedded``; otherwise settings derived from the UNet. Raises MarqueeError where
    the handler would refuse it.
    """
    own = folder / CONFIG_FILE
    beside = embedded.parent / CONFIG_FILE
    if given is not None:
        source = given
    elif own.is_file():
        source = own
    elif beside.is_file() and _is_same_model(folder, embedded):
        source = beside
    else:
        content = _derive(folder)
        _check(content, f"the settings derived from {folder}", handler)
        return content
    content = read_regular(source, MAX_YAML_BYTES)
    _check(content, str(source), handler)
    return content


def _is_same_model(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same model, file by file; files that are never packed do not count."""
    names = _model_names(folder)
    if names != _model_names(other):
        return False
    _, differing, unreadable = filecmp.cmpfiles(folder, other, sorted(names), shallow=False)
    return not differing and not unreadable


def _model_names(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in MODEL_SUFFIXES and path.is_file()
    }


def with_continuous_batching(content: bytes, on: bool) -> bytes:
    """The same settings with the switch as the container takes it; unchanged where it is so already.

    TorchServe 0.9 to 0.11.0 take it and then answer nothing (docs/prebuilt-rehearsal.md); without it every
    version answers. Continuous batches hold all requests that are drawn or wait, so they must be larger.
    """
    import yaml

    document = yaml.safe_load(content)
    if not isinstance(document, dict) or bool(document.get(CONTINUOUS_BATCHING)) == on:
        return content
    own = document.get("marquee") or {}
    places = own.get("max_batch", "auto")
    if places == "auto":
        # A plain batch must be drawn whole in time, however few pictures the machine draws together.
        places = SERVING["batchSize"] if not on else STRICT_PLACES if own.get("strict") else AUTO_PLACES
    document.pop(CONTINUOUS_BATCHING, None)
    if on:
        document[CONTINUOUS_BATCHING] = True
    document["batchSize"] = REQUESTS_PER_PLACE * places if on else places
    document["maxBatchDelay"] = 1 if on else SERVING["maxBatchDelay"]
    return yaml.safe_dump(document, sort_keys=False).encode()


def written_defaults(content: bytes) -> dict[str, Any]:
    """The defaults for a request's fields that model-config.yaml (checked before) gives."""
    own = read_mapping(content).get("marquee")
    defaults = own.get("defaults") if isinstance(own, dict) else None
    return defaults if isinstance(defaults, dict) else {}


def trained_size(folder: Path) -> tuple[int, int]:
    """Width and height in pixels the model was trained for: the UNet's sample_size times the VAE's factor.

    Raises MarqueeError where the two configurations do not say it.
    """
    unet = json.loads((folder / "unet/config.json").read_text(encoding="utf-8"))
    vae = json.loads((folder / "vae/config.json").read_text(encoding="utf-8"))
    sample = unet.get("sample_size") or 64  # diffusers takes 64 where it is null
    height, width = sample if isinstance(sample, list) and len(sample) == 2 else (sample, sample)
    blocks = vae.get("block_out_channels", [0] * 4)
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= LARGEST_BLOCKS:
        raise MarqueeError(f"{folder}/vae/config.json: block_out_channels is not a list of a VAE's blocks")
    factor = 2 ** (len(blocks) - 1)
    for value in (width, height):
        if type(value) is not int or not 1 <= value * factor <= LARGEST_SIDE:
            raise MarqueeError(
                f"{folder}/unet/config.json: sample_size is {str(sample)[:50]}, not a latent's side (64)",
                "correct it, or name the size in a file of your own: --config FILE",
            )
    return width * factor, height * factor


def _derive(folder: Path) -> bytes:
    """Stable Diffusion's customary 30 steps at guidance 7.5, in the size the UNet was trained for."""
    import yaml

    width, height = trained_size(folder)
    side, most = min(width, height), max(2 * width, 2 * height, 64)
    own = {
        "defaults": {"num_inference_steps": 30, "guidance_scale": 7.5, "width": width, "height": height},
        "limits": {
            "min_width": min(side, 64),
            "min_height": min(side, 64),
            "max_width": most,
            "max_height": most,
            "max_pixels": most * most,
            "max_num_inference_steps": 100,
            "max_instances": 16,
            "max_prompt_characters": 1000,
        },
    }
    return yaml.safe_dump({**SERVING, "marquee": own}, sort_keys=False).encode()


def count_problems(document: Mapping[str, Any]) -> Iterator[str]:
    """Problems of the counts that TorchServe reads from model-config.yaml; the handler checks the others."""
    for key, most in MOST.items():
        value = document.get(key)
        if isinstance(value, int) and value > most:
            yield f"{key} is {_short(value)}; at most {most:,} {'is' if most == 1 else 'are'} possible"
    least, most_workers = document.get("minWorkers"), document.get("maxWorkers")
    if isinstance(least, int) and isinstance(most_workers, int) and least > most_workers:
        yield f"minWorkers is {_short(least)}, more than maxWorkers, {_short(most_workers)}"


def _short(number: int) -> str:
    """A count as text; Python itself refuses to write one of more than 4,300 digits."""
    return f"{number:,}" if number < 10**18 else f"about 2^{number.bit_length() - 1}"


def _check(content: bytes, origin: str, handler: Path) -> None:
    try:
        document = read_mapping(content)
        text = json.dumps(document, allow_nan=False)
    except NotPlain as error:
        raise MarqueeError(f"{origin} is not YAML of plain values: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise MarqueeError(f"{origin} holds a value that JSON does not have: {error}") from error
    if problems := list(count_problems(document)):
        raise MarqueeError(f"{origin}: {'; '.join(problems)}", "write a smaller number, or leave the key out")
    answer = subprocess.run(
        [sys.executable, "-I", "-c", CHECK, str(handler.parent)],
        input=text,
        capture_output=True,
        text=True,
        timeout=CHECK_TIMEOUT_SECONDS,
        check=False,
    )
    if answer.returncode:
        reason = (
            answer.stderr.strip().splitlines() or ["the check of the settings ended without a message"]
        )[-1]
        raise MarqueeError(f"{origin}: {reason}")
