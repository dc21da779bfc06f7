"""The archive's model-config.yaml: chosen or derived, and checked by the very handler that will read it."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.archive.layout import CONFIG_FILE
from pipeline.errors import MarqueeError

CHECK_TIMEOUT_SECONDS = 60
MODEL_SUFFIXES = (".json", ".safetensors", ".txt")
CONTINUOUS_BATCHING = "continuousBatching"
# Requests TorchServe may hand to the engine for each picture drawn at a time: it queues them by deadline.
REQUESTS_PER_PLACE = 6
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
    try:
        content = source.read_bytes()
    except OSError as error:
        raise MarqueeError(f"{source} cannot be read: {error.strerror}") from error
    _check(content, str(source), handler)
    return content


def _is_same_model(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same model, file by file; what never ships does not count."""
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
    places = (document.get("marquee") or {}).get("max_batch", 8)
    document.pop(CONTINUOUS_BATCHING, None)
    if on:
        document[CONTINUOUS_BATCHING] = True
    document["batchSize"] = REQUESTS_PER_PLACE * places if on else places
    document["maxBatchDelay"] = 1 if on else SERVING["maxBatchDelay"]
    return yaml.safe_dump(document, sort_keys=False).encode()


def _derive(folder: Path) -> bytes:
    """Stable Diffusion's customary 30 steps at guidance 7.5, in the size the UNet was trained for."""
    import yaml

    unet = json.loads((folder / "unet/config.json").read_text(encoding="utf-8"))
    vae = json.loads((folder / "vae/config.json").read_text(encoding="utf-8"))
    side = int(unet.get("sample_size") or 64) * 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)
    most = max(2 * side, 64)
    own = {
        "defaults": {"num_inference_steps": 30, "guidance_scale": 7.5, "width": side, "height": side},
        "limits": {
            "min_width": min(side, 64),
            "min_height": min(side, 64),
            "max_width": most,
            "max_height": most,
            "max_pixels": most * most,
            "max_num_inference_steps": 100,
            "max_instances": 16,
            "max_prompt_characters": 1000,
            "max_response_bytes": 6_553_500,
        },
    }
    return yaml.safe_dump({**SERVING, "marquee": own}, sort_keys=False).encode()


def _check(content: bytes, origin: str, handler: Path) -> None:
    import yaml

    try:
        document: Any = yaml.safe_load(content)
        text = json.dumps({} if document is None else document)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise MarqueeError(f"{origin} is not YAML of plain values: {error}") from error
    answer = subprocess.run(
        [sys.executable, "-I", "-c", CHECK, str(handler.parent)],
        input=text,
        capture_output=True,
        text=True,
        timeout=CHECK_TIMEOUT_SECONDS,
        check=False,
    )
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["the handler ended without a word"])[-1]
        raise MarqueeError(f"{origin}: {reason}")
