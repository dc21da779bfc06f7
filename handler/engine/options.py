"""How one engine is run, fixed at its start."""

from __future__ import annotations

from dataclasses import dataclass

from handler.contract.safety import DEFAULT_SAFETY


@dataclass(frozen=True)
class EngineOptions:
    """Bounds and modes of an engine; every number is checked once, here."""

    max_live: int = 8
    """Images denoised together, over all sizes."""
    max_queue: int = 64
    """Jobs that wait for a place; the next one is refused."""
    patience_seconds: float = 60.0
    """The deadline of a job that names none, for the order of admission only."""
    strict: bool = False
    """Fixed row counts, so that a picture's bits depend on its own job alone."""
    vectorised: bool = False
    """Scheduler arithmetic for all rows at once instead of diffusers' schedulers row by row (eager CPU)."""
    decode_thread: bool = False
    """Decode in a thread beside the denoising steps (GPU) instead of between them (CPU)."""
    max_steps: int = 100
    """The most denoising steps a job may ask for; sizes the histories of a vectorised strict engine."""
    text_cache: int = 256
    """Encoded texts kept; one SD 1.5 text is 118 KB in fp16."""
    safety: str = DEFAULT_SAFETY
    """What is done with a picture that the safety checker flags: send, blur or withhold."""

    def __post_init__(self) -> None:
        if self.max_live < 1 or self.max_queue < 0 or self.text_cache < 0:
            raise ValueError(f"an engine needs max_live of 1 or more and nothing negative, got {self}")

    @property
    def history_columns(self) -> int:
        """Columns of the longest history: the first noise, then two a step (PNDM takes one step more)."""
        return 1 + 2 * (self.max_steps + 1)
