"""How many images fit: admission is bounded by measured bytes per image, decoding is sliced."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from handler.model.model import Model

NO_LIMIT = 1 << 62
HEADROOM = 0.9
"""Share of the free memory that is planned with; the rest is for fragments and kernels' work space."""


@dataclass(frozen=True)
class Footprint:
    """Peak bytes beyond the weights, per pixel of a picture: one UNet row, one decoding, one history.

    ``encode_bytes``: encoding the picture that came with a job. ``family_bytes``: by the name of a family
    that the model serves, what its live image holds beside the history. ``check_bytes``: the safety checker's
    look at one picture of any size.
    """

    unet_row_bytes: float
    decode_bytes: float
    state_bytes: float
    encode_bytes: float = 0.0
    family_bytes: Mapping[str, float] = field(default_factory=dict)
    check_bytes: float = 0.0

    def picture_bytes(self, pixels: int) -> int:
        """Making one picture of a latent: it is decoded, then checked."""
        return int(max(self.decode_bytes * pixels, self.check_bytes))

    def image_bytes(self, pixels: int, family: str | None = None) -> int:
        """One live image: two rows (guidance), its sampler's state, and its family's.

        Without a ``family`` it is the one that takes the least.
        """
        held = min(self.family_bytes.values(), default=0.0)
        if family is not None:
            held = self.family_bytes.get(family, 0.0)
        return int(pixels * (2 * self.unet_row_bytes + self.state_bytes + held))


class Claim(NamedTuple):
    """What an image takes memory by."""

    pixels: int
    family: str = "text_to_image"


@dataclass(frozen=True)
class MemoryPlan:
    """``budget_bytes`` is what live images and the decoding beside them may take together."""

    budget_bytes: int
    footprint: Footprint

    def fits(self, live: Sequence[Claim], claim: Claim) -> bool:
        """Whether an image may join the ``live`` ones, and the largest be decoded.

        The first image always may: if it truly does not fit, the device says so. While a picture is encoded
        no UNet runs, so the larger of the two is counted.
        """
        if not live:
            return True
        footprint, claims = self.footprint, [*live, claim]
        decoding = footprint.picture_bytes(max(one.pixels for one in claims))
        images = sum(footprint.image_bytes(*one) for one in claims)
        encoding = 0 if claim.family == "text_to_image" else footprint.encode_bytes * claim.pixels
        rows = 2 * footprint.unet_row_bytes * sum(one.pixels for one in claims)
        return images + max(0, int(encoding - rows)) + decoding <= self.budget_bytes

    def places(self, pixels: int) -> int:
        """Images of one size that fit together, at least one."""
        decoding = self.footprint.picture_bytes(pixels)
        return max(1, (self.budget_bytes - decoding) // max(1, self.footprint.image_bytes(pixels)))

    def decode_slice(self, pixels: int, live: int) -> int:
        """Pictures that may be decoded in one call beside ``live`` images of their size, at least one."""
        left = self.budget_bytes - self.footprint.image_bytes(live * pixels)
        return max(1, left // max(1, self.footprint.picture_bytes(pixels)))


def plan_memory(model: Model, footprint: Footprint) -> MemoryPlan:
    """The plan for the memory that is free now, after the weights were loaded and graphs were captured."""
    # The allocator counts what a graph keeps for its replays as free to allocate, and it is not.
    held_bytes: int = getattr(model.unet, "held_bytes", 0)
    return MemoryPlan(int((free_bytes(model.device) - held_bytes) * HEADROOM), footprint)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated: on the CUDA device, or in the machine and its container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return min(available_bytes(), cgroup_free_bytes())


def used_bytes(device: torch.device) -> int:
    """Bytes of the device's memory that tensors hold; on a CPU, of the machine's that this process holds."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The machine's memory that can be had without swapping, page cache that can be dropped included."""
    try:
        return 1024 * _numbers(meminfo)["MemAvailable"]
    except (OSError, KeyError):  # not Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cgroup_free_bytes(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What the container's limit leaves; memory.current counts page cache, which the kernel gives back."""
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        numbers = _numbers(folder / "memory.stat")
    except (OSError, ValueError):  # no limit is the word "max"
        return NO_LIMIT
    cached = numbers.get("inactive_file", 0) + numbers.get("active_file", 0)
    return limit - max(0, used - cached)


def _numbers(path: Path) -> dict[str, int]:
    """The first number of each line by the line's first word."""
    lines = [line.replace(":", " ").split() for line in path.read_text(encoding="ascii").splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
