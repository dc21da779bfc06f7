"""A tiny archive, unpacked as TorchServe unpacks it, and the door that serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from door_batches import handle, make_context
from tiny_lora import write_tiny_lora
from tiny_pipeline import write_tiny_pipeline

CONFIG = """
maxWorkers: 1
marquee:
  defaults: {num_inference_steps: 3, width: 64, height: 64, output_format: png}
  limits:
    {max_width: 128, max_height: 128, max_pixels: 8192, max_instances: 4, max_prompt_characters: 200,
     max_image_bytes: 500000, max_image_pixels: 1048576}
  loras: {ink: {default_weight: 0.5}, chalk: {}}
  max_batch: 4
  threads: 1
"""


@pytest.fixture(scope="session")
def archive_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked archive without our code: model/, loras/ and model-config.yaml."""
    root = tmp_path_factory.mktemp("archive")
    write_tiny_pipeline(root)
    for seed, name in enumerate(("ink", "chalk")):
        write_tiny_lora(root, name, seed)
    (root / "model-config.yaml").write_text(CONFIG)
    return root


@pytest.fixture(scope="session")
def door(archive_root: Path) -> Any:
    from handler.doors.torchserve.door import Door

    opened = Door()
    opened.initialize(make_context(archive_root, 0))
    return opened


@pytest.fixture
def second_door(door: Any) -> Any:
    """A door of its own on the loaded model, for tests that change it."""
    from handler.doors.torchserve.door import Door

    copy = Door()
    vars(copy).update(vars(door))
    return copy


@pytest.fixture
def ask(door: Any, archive_root: Path) -> Callable[..., list[tuple[int, Any]]]:
    """Send requests as one TorchServe batch; get (status, parsed answer) for each."""

    def send(*bodies: Any) -> list[tuple[int, Any]]:
        return handle(door, archive_root, [{"body": body} for body in bodies])

    return send
