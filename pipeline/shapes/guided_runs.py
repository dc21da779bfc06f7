"""Pictures that are being drawn with guidance while the model learns, so that it sees what guidance does.

A model that learns from noised pictures alone has never seen the latents that guidance makes: at the first
steps ``u + g * (c - u)`` goes up to ``g`` times too far. Here it meets them and learns the way back. The
guesses that a training step makes anyway also take every run one step on, so that the runs cost nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.shapes import networks
from pipeline.shapes.palette import SHAPES, all_captions
from pipeline.shapes.placed_latents import BACK, PlacedLatents
from pipeline.shapes.placements import HALVES, Half

if TYPE_CHECKING:
    import numpy as np
    import torch

ABREAST = 4  # pictures of one run, which share scheduler and timestep
SCHEDULERS = {  # diffusers' class, and its weight in the choice
    "PNDMScheduler": 6,
    "DDIMScheduler": 2,
    "EulerDiscreteScheduler": 3,
    "EulerAncestralDiscreteScheduler": 1,
    "DPMSolverMultistepScheduler": 3,
    "UniPCMultistepScheduler": 1,
    "LCMScheduler": 1,
}
_OFTEN = (1.0, 1.5, 7.5)  # guidance of a run's first picture; the second's is 5 to 8, the others' 1 to 8
_LOST = 200.0  # a latent beyond this is given up


class GuidedRun:
    """ABREAST pictures: drawn from text (60 %), from another picture (20 %) or into one (20 %).

    At their end it begins new ones. ``captions`` (numbers in all_captions()) and ``guidance`` are theirs.
    """

    def __init__(self, data: PlacedLatents, random: np.random.Generator) -> None:
        self._data, self._random = data, random
        self._by_shape = {
            shape: [number for number, caption in enumerate(all_captions()) if caption.shape == shape]
            for shape in SHAPES
        }
        self._begin()

    def _begin(self) -> None:
        import diffusers
        import torch

        random = self._random
        chances = [weight / sum(SCHEDULERS.values()) for weight in SCHEDULERS.values()]
        name = list(SCHEDULERS)[random.choice(len(SCHEDULERS), p=chances)]
        self._ancestral_time = name.startswith("Euler")
        self._scheduler: Any = getattr(diffusers, name).from_config(networks.SCHEDULER)
        self._count = int(random.integers(8 if name == "LCMScheduler" else 10, 31))
        self._scheduler.set_timesteps(self._count)
        kind = random.random()
        self.captions = torch.from_numpy(random.integers(0, len(BACK), ABREAST))
        self.guidance = torch.from_numpy(random.uniform(1, 8, ABREAST)).float()
        self.guidance[0] = float(random.choice(_OFTEN))
        self.guidance[1] = float(random.uniform(5, 8))
        self._noise = torch.randn(ABREAST, 4, 8, 8)
        self._aim: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        if kind < 0.6 or name == "LCMScheduler":
            self._from_text()
        elif kind < 0.8:
            self._from_picture()
        else:
            self._into_picture()
        self._step = 0

    def _from_text(self) -> None:
        self._times = self._scheduler.timesteps
        self._latents = self._noise * self._scheduler.init_noise_sigma

    def _from_picture(self) -> None:
        """From a picture of mostly the same shape at the same place; the aim is the caption there."""
        import torch

        random = self._random
        self._skip(float(random.uniform(0.5, 1.0)))
        place = torch.from_numpy(random.integers(0, len(self._data.places), ABREAST))
        sources = [self._another(caption) for caption in self.captions.tolist()]
        self._aim = self._data.shapes[self.captions, place]
        source = self._data.shapes[torch.tensor(sources), place]
        self._latents = self._scheduler.add_noise(source, self._noise, self._times[:1].repeat(ABREAST))

    def _another(self, caption: int) -> int:
        same = self._by_shape[all_captions()[caption].shape]
        return int(
            self._random.choice(same) if self._random.random() < 0.8 else self._random.integers(len(BACK))
        )

    def _into_picture(self) -> None:
        """Into one half of a plain picture, which has the caption's background."""
        import torch

        strength = float(self._random.choice([1.0, 1.0, 0.9, 0.75]))
        self._skip(strength)
        half: Half = HALVES[self._random.integers(len(HALVES))]
        self._allowed = self._data.places.within(half)
        self._mask = _mask_of(half)
        self._source = self._data.plain[torch.tensor(BACK)[self.captions]]
        if strength == 1.0:
            self._latents = self._noise * self._scheduler.init_noise_sigma
        else:
            self._latents = self._noised(self._times[:1])

    def _skip(self, strength: float) -> None:
        """Leave out the first steps, as diffusers' pipelines do."""
        first = max(self._count - min(int(self._count * strength), self._count), 0) * self._scheduler.order
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(first)
        self._times = self._scheduler.timesteps[first:]

    def _noised(self, time: torch.Tensor) -> torch.Tensor:
        noised: torch.Tensor = self._scheduler.add_noise(self._source, self._noise, time.repeat(ABREAST))
        return noised

    def look(self) -> tuple[torch.Tensor, float, float]:
        """What the UNet sees now: latents, timestep, and the share of the picture's variance that is kept."""
        time = self._times[self._step]
        seen = self._scheduler.scale_model_input(self._latents, time)
        if self._ancestral_time:  # between two timesteps
            return seen, float(time), float(1 / (1 + self._scheduler.sigmas[self._scheduler.step_index] ** 2))
        return seen, float(time), float(self._scheduler.alphas_cumprod[int(time)])

    def aim(self, guess: torch.Tensor, kept: float) -> torch.Tensor:
        """The clean latents that the run should end at.

        Where they are not known from the start they are the caption's pictures, weighted by how well each
        fits the clean latents that the model guesses: their mean in the noise, one of them later.
        """
        if self._aim is not None:
            return self._aim
        allowed = range(self._data.places.middle) if self._mask is None else self._allowed
        known = self._data.shapes[self.captions][:, list(allowed)]
        distances = (known.flatten(2) - guess.clamp(-1.6, 1.6).flatten(1)[:, None]).square().sum(-1)
        shares = (-distances * kept / (1 - kept)).softmax(1)
        mean = (shares[:, :, None] * known.flatten(2)).sum(1).view_as(guess)
        return mean if self._mask is None else self._mask * mean + (1 - self._mask) * self._source

    def advance(self, guided: torch.Tensor) -> None:
        """Take one step with the guided noise; a run at its end begins anew, as another."""
        import torch

        time = self._times[self._step]
        self._latents = self._scheduler.step(guided, time, self._latents, return_dict=False)[0]
        self._step += 1
        done = self._step >= len(self._times)
        if self._mask is not None and not done:
            outside = self._noised(self._times[self._step : self._step + 1])
            self._latents = self._mask * self._latents + (1 - self._mask) * outside
        if done or not torch.isfinite(self._latents).all() or self._latents.abs().max() > _LOST:
            self._begin()


def _mask_of(half: Half) -> torch.Tensor:
    """One in the cells of a half, zero elsewhere: (8, 8)."""
    import torch

    mask = torch.zeros(8, 8)
    rows, columns = {
        "right": (slice(None), slice(4, None)),
        "left": (slice(None), slice(4)),
        "lower": (slice(4, None), slice(None)),
        "upper": (slice(4), slice(None)),
    }[half]
    mask[rows, columns] = 1
    return mask
