"""A UNet compiled ahead of time that travels in the archive, so that a cold start does not pay for it.

It is AOTInductor's, with the weights folded in: a shared library on a CPU (``compiled/unet.so``), a package
on a GPU (``compiled/unet.pt2``). ``compiled/key.json`` names its machine and versions. Anything that does not
match means the plain UNet and one line in the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import torch

from handler.engine.accelerate.accelerated_unet import AcceleratedUNet
from handler.engine.accelerate.lanes import Lanes
from handler.engine.accelerate.native import NativeCode
from handler.model.digest import check_digests, file_digests
from handler.model.model import Model, UNet

logger = logging.getLogger(__name__)

FOLDER = "compiled"
LIBRARY = "unet.so"
PACKAGE = "unet.pt2"
KEY = "key.json"
LANES_FROM = "lanes_from"
"""Among the shapes in the key: rows from which a call is split over lanes (``lane_trial``)."""


def compile_key(model: Model) -> dict[str, object]:
    """What compiled code depends on beside its shapes; equal keys mean that it may be loaded."""
    return {
        "torch": torch.__version__,
        "processor": _processor(model.device),
        "dtype": str(model.dtype),
        "channels_last": model.channels_last,
        "weights_digest": model.weights_digest,
    }


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm_{major}{minor} cuda {torch.version.cuda}"
    # Compiled with -march=native: on a processor with less, its code would end the worker. An older
    # torch than the compiler's cannot list instruction sets and need not: its version differs.
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = sorted(name for name, present in features.items() if present is True)
    return " ".join(["cpu", torch.backends.cpu.get_cpu_capability(), *names])


class CompiledUNet(AcceleratedUNet):
    """Takes the shapes it was compiled for; with ``lanes`` enough rows are split over them."""

    def __init__(
        self,
        plain: UNet,
        compiled: Callable[..., torch.Tensor],
        shapes: Mapping[str, int],
        lanes: Lanes | None = None,
        even: bool = False,
    ) -> None:
        super().__init__(plain)
        self.lanes = lanes
        self._compiled, self._shapes, self._even = compiled, shapes, even
        self._rows = shapes["rows"]
        self._size = (shapes["height"], shapes["width"])
        self._lanes_from = shapes.get(LANES_FROM, 2)

    def takes(self, sample: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> bool:
        return len(sample) <= self._rows and sample.shape[2:] == self._size

    def predict(self, sample: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        rows = (sample.contiguous(memory_format=torch.channels_last), times.contiguous(), texts.contiguous())
        if self.lanes is None:
            return self._compiled(*rows)
        count = self._parts(len(sample), self.lanes.count)
        parts = list(zip(*(tensor.tensor_split(count) for tensor in rows)))
        return torch.cat(self.lanes.map(lambda part: self._compiled(*part), parts))

    def with_even_parts(self) -> CompiledUNet:
        """The same in calls of one size: a row's last bits depend on how many rows its call has."""
        return CompiledUNet(self.plain, self._compiled, self._shapes, self.lanes, even=True)

    def _parts(self, rows: int, lanes: int) -> int:
        count = min(lanes, rows) if rows >= self._lanes_from else 1
        while self._even and rows % count:
            count -= 1
        return count

    def call_plain(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        timestep_cond: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        if self.lanes is None:
            return super().call_plain(sample, timestep, encoder_hidden_states, timestep_cond)
        with self.lanes.all_cores():
            return super().call_plain(sample, timestep, encoder_hidden_states, timestep_cond)


def with_compiled_unet(model: Model, root: Path) -> Model:
    """The model with the archive's compiled UNet where there is one for this machine, else as it is.

    Raises DigestError where compiled/ differs from the built archive, because its code is about to run.
    """
    path = root / FOLDER / KEY
    if not path.is_file():
        return model
    check_digests(root, FOLDER, file_digests(root / FOLDER))
    try:
        shipped = json.loads(path.read_text(encoding="utf-8"))
        shapes = {name: int(size) for name, size in shipped.pop("shapes").items()}
        missing = {"rows", "height", "width"} - shapes.keys()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        logger.warning("compiled/%s cannot be read (%r): running eager", KEY, error)
        return model
    differing = [f"shapes: no {name}" for name in sorted(missing)] + [
        f"{name}: {shipped.get(name)}, here {value}"
        for name, value in compile_key(model).items()
        if shipped.get(name) != value
    ]
    if differing:
        logger.warning("the compiled UNet is not for this machine (%s): running eager", "; ".join(differing))
        return model
    try:
        unet = _load(root / FOLDER, model, shapes)
    except (OSError, RuntimeError) as error:
        logger.warning("the compiled UNet cannot be loaded (%s): running eager", error)
        return model
    return replace(model, unet=unet)


def _load(folder: Path, model: Model, shapes: Mapping[str, int]) -> CompiledUNet:
    if model.device.type == "cuda":
        code = torch._inductor.aoti_load_package(
            str(folder / PACKAGE), run_single_threaded=True, device_index=model.device.index or 0
        )
        return CompiledUNet(model.unet, code, shapes)
    cores = torch.get_num_threads()
    native = NativeCode(folder / LIBRARY, callers=cores)
    return CompiledUNet(model.unet, native, shapes, Lanes(cores))
