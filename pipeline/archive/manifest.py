"""MAR-INF/MANIFEST.json: marquee's content, and a check that TorchServe would run nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.archive.layout import CONFIG_FILE, HANDLER_FILE, MANIFEST

# Other keys run code: pip installs requirementsFile; TorchServe unpickles serializedFile, imports modelFile.
KEYS = ("createdOn", "runtime", "model", "archiverVersion")
MODEL_KEYS = ("modelName", "handler", "modelVersion", "configFile")


def manifest_bytes() -> bytes:
    """The manifest as torch-model-archiver 0.12 writes it, with a date that never changes."""
    manifest = {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": "model",
            "handler": HANDLER_FILE,
            "modelVersion": "1.0",
            "configFile": CONFIG_FILE,
        },
        "archiverVersion": "0.12.0",
    }
    return json.dumps(manifest, indent=2).encode()


def manifest_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The reasons why TorchServe would not run marquee's handler, or would run other code."""
    model = manifest.get("model")
    if not isinstance(model, dict):
        yield f"{MANIFEST} names no model"
        return
    for key in [*(manifest.keys() - set(KEYS)), *(model.keys() - set(MODEL_KEYS))]:
        yield f"{MANIFEST} has the key {key[:100]!r}, which marquee does not write"
    expected = {"handler": HANDLER_FILE, "configFile": CONFIG_FILE}
    for key, value in expected.items():
        if model.get(key) != value:
            yield f"{MANIFEST} names {str(model.get(key))[:100]!r} as {key}; {value} is served"
    if (runtime := manifest.get("runtime")) not in ("python", "python3"):
        yield f"{MANIFEST} names the runtime {str(runtime)[:100]!r}; python is served"


def foreign_manifest_problems(manifest: Mapping[str, Any], names: Collection[str]) -> Iterator[str]:
    """The reasons why TorchServe would look for a foreign archive's handler outside the archive."""
    model = manifest.get("model")
    handler = model.get("handler") if isinstance(model, dict) else None
    if not isinstance(handler, str) or not handler:
        yield f"{MANIFEST} names no handler"
        return
    module = handler.split(":")[0]
    if "/" in module or "\\" in module or (module.endswith(".py") and module not in names):
        yield f"{MANIFEST} names the handler {handler[:100]!r}, which is not in the archive"
