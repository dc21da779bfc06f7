"""A faster way to call a UNet, for some calls; the plain UNet takes the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from handler.model.model import UNet


class AcceleratedUNet(ABC):
    """Called like the UNet it stands for, ``plain``."""

    def __init__(self, plain: UNet) -> None:
        self.plain = plain

    @property
    def config(self) -> Any:
        return self.plain.config

    def __call__(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        timestep_cond: torch.Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """(rows, 4, height, width) to a tuple of the same shape, as ``UNet2DConditionModel`` does."""
        times = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device).expand(len(sample))
        if timestep_cond is None and self.takes(sample, times, encoder_hidden_states):
            return (self.predict(sample, times, encoder_hidden_states),)
        return self.call_plain(sample, timestep, encoder_hidden_states, timestep_cond)

    def eager(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        timestep_cond: torch.Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """The same without any acceleration, for rows that change layers of the plain UNet (LoRAs)."""
        return self.call_plain(sample, timestep, encoder_hidden_states, timestep_cond)

    @abstractmethod
    def takes(self, sample: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> bool:
        """Whether these rows can be predicted the faster way."""

    @abstractmethod
    def predict(self, sample: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """The UNet's output for rows that it takes."""

    def call_plain(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        timestep_cond: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        return self.plain(
            sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond, return_dict=False
        )
