"""Compile an unpacked archive's UNet for this machine.

``python -m handler.engine.accelerate.compile_unet FOLDER``

FOLDER is what TorchServe would unpack; its settings name device, dtype and size. Writes FOLDER/compiled/.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from handler.contract.settings import load_settings
from handler.engine.accelerate.compiled import FOLDER, KEY, LANES_FROM, LIBRARY, PACKAGE, compile_key
from handler.engine.accelerate.lane_trial import lanes_from
from handler.engine.accelerate.lanes import Lanes
from handler.engine.accelerate.native import NativeCode
from handler.engine.accelerate.packing import pack_convolutions
from handler.model.device import choose_device, set_threads
from handler.model.load import load_model
from handler.model.model import Model


def main() -> None:
    """Compile the model that the first argument names."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    root = Path(sys.argv[1])
    settings = load_settings(root / "model-config.yaml")
    set_threads(settings)
    check_compiler(choose_device(settings.device, gpu_id=0))
    model = load_model(root / "model", settings, gpu_id=0)  # auto: this machine's GPU, where it has one
    size = model.latent_size(settings.defaults.width, settings.defaults.height)
    shapes = {"rows": 2 * settings.most_places, **size._asdict()}
    compile_unet(model, shapes, root / FOLDER)


def check_compiler(device: torch.device) -> None:
    """Exits with a line that says why, before minutes are spent, where torch cannot compile for this GPU."""
    if device.type == "cuda":
        refuse_old_gpu(torch.cuda.get_device_capability(device))


def refuse_old_gpu(capability: tuple[int, int]) -> None:
    """Raises SystemExit below compute capability 7.0, which Triton asks for (a P100 has 6.0)."""
    if capability < (7, 0):
        sys.exit(
            "this GPU is sm_{}{}; torch compiles (through Triton) for sm_70 and newer. Build without"
            " --compile: it is served with CUDA graphs".format(*capability)
        )


def compile_unet(model: Model, shapes: dict[str, int], target: Path) -> None:
    """Write the code for 1 to ``rows`` rows of one latent size, then its key; the key comes last."""

    class Predict(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = model.unet

        def forward(self, sample: Any, timestep: Any, texts: Any) -> Any:
            return self.unet(sample, timestep, texts, return_dict=False)[0]

    target.mkdir(parents=True, exist_ok=True)
    rows = torch.export.Dim("rows", min=1, max=shapes["rows"])
    # Freezing folds and pre-packs the weights: on a CPU without it compiling gains a tenth, with it a third.
    # One thread per call there, because several calls run beside each other (native.py).
    options: dict[str, Any] = {}
    if model.device.type == "cpu":
        options = {"freezing": True, "cpp.threads": 1}
        pack_convolutions()
    with torch.no_grad():
        program = torch.export.export(
            Predict(), _example(model, shapes), dynamic_shapes=({0: rows}, {0: rows}, {0: rows})
        )
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(target / PACKAGE), inductor_configs=options
        )
    if model.device.type == "cpu":
        _unpack_library(target)
        shapes = {**shapes, LANES_FROM: _try_lanes(target / LIBRARY, shapes, _example(model, shapes))}
    key = {**compile_key(model), "shapes": shapes}
    (target / KEY).write_text(json.dumps(key, indent=2, sort_keys=True), encoding="utf-8")


def _unpack_library(folder: Path) -> None:
    """Leaves the package's shared library in its place."""
    with zipfile.ZipFile(folder / PACKAGE) as package:
        (name,) = (name for name in package.namelist() if name.endswith(".wrapper.so"))
        with package.open(name) as source, (folder / LIBRARY).open("wb") as library:
            shutil.copyfileobj(source, library)
    (folder / PACKAGE).unlink()


def _try_lanes(library: Path, shapes: dict[str, int], rows: tuple[torch.Tensor, ...]) -> int:
    cores = torch.get_num_threads()
    with torch.inference_mode():
        return lanes_from(NativeCode(library, callers=cores), shapes, rows, Lanes(cores))


def _example(model: Model, shapes: dict[str, int]) -> tuple[torch.Tensor, ...]:
    count = min(2, shapes["rows"])
    sample = torch.randn(count, model.unet_channels, shapes["height"], shapes["width"])
    sample = sample.to(model.device, model.dtype).contiguous(memory_format=torch.channels_last)
    texts = torch.randn(count, *model.text_shape).to(model.device, model.dtype)
    timestep = torch.full((count,), 500.0, device=model.device)
    return sample, timestep, texts


if __name__ == "__main__":
    main()
