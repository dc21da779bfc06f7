"""How many live images, rows of a UNet call and pictures of one decoding fit, for each latent size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handler.contract.job import Job
from handler.engine.memory.plan import Claim, MemoryPlan
from handler.engine.options import EngineOptions
from handler.model.model import Size


@dataclass(frozen=True)
class Capacity:
    """The memory plan under an engine's options; ``factor`` is pixels per latent column or row."""

    plan: MemoryPlan
    options: EngineOptions
    factor: int

    def size(self, job: Job) -> Size:
        """The size of the job's latent."""
        return Size(job.height // self.factor, job.width // self.factor)

    def fits(self, live: Sequence[Job], job: Job) -> bool:
        """Whether ``job`` may join the live ones."""
        claims = [_claim(other) for other in live]
        return len(live) < self.options.max_live and self.plan.fits(claims, _claim(job))

    def most_live(self, size: Size) -> int:
        """Images of one size that can be live together."""
        return min(self.options.max_live, self.plan.places(self._pixels(size)))

    def unet_rows(self, size: Size) -> int | None:
        """Rows of every UNet call in strict mode; the text encoder and the autoencoder then take one row."""
        return 2 * self.most_live(size) if self.options.strict else None

    def decode_slice(self, size: Size) -> int:
        """Pictures of one decoding."""
        if self.options.strict:
            return 1
        return self.plan.decode_slice(self._pixels(size), self.most_live(size))

    def _pixels(self, size: Size) -> int:
        return size.height * size.width * self.factor**2


def _claim(job: Job) -> Claim:
    return Claim(job.width * job.height, job.family)
