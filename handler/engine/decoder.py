"""Latents to pictures: batched autoencoder decoding, between the steps or in a thread beside them."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Union

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from handler.contract.job import Failure
from handler.engine.memory.elastic import BROKEN, Elastic
from handler.engine.previews import preview_file
from handler.engine.ticket import Ticket
from handler.model.model import Model, Size

if TYPE_CHECKING:
    from handler.engine.accelerate.lanes import Lanes

logger = logging.getLogger(__name__)

NOT_FINITE = Failure(500, "not_finite", "The model produced numbers that are not finite for this request.")
NO_MEMORY = Failure(503, "out_of_memory", "The device had no memory left for this request; try again later.")


WORTH_ALL_CORES = 0.1
"""Seconds of one picture from which those that are left over by equal lanes are decoded on all cores.

Three pictures of SD 1.5 at 256x256 took 9.4 s so and 11.6 in two lanes; of the embedded model 26 ms and 20.
"""


Mark = Optional[torch.cuda.Event]


@dataclass(frozen=True)
class Undecoded:
    """A latent (1, 4, h, w) at the end of its steps, or one that is predicted for a ``preview``."""

    ticket: Ticket
    size: Size
    latent: torch.Tensor
    preview: bool = False


@dataclass(frozen=True)
class Decoded:
    """A picture or why there is none, and the seconds that the call which decoded it took.

    A preview is a file already.
    """

    latent: Undecoded
    result: Image.Image | bytes | Failure
    seconds: float


class PictureDecoder:
    """Decodes as StableDiffusionPipeline does, at most ``slice_of(size)`` pictures at once."""

    def __init__(self, model: Model, slice_of: Callable[[Size], int], lanes: Lanes | None = None) -> None:
        self._model = model
        self._slice_of = slice_of
        self._lanes = lanes
        self._seconds: dict[Size, float] = {}
        self._elastic = Elastic(model.device)
        self._processor = VaeImageProcessor()

    def decode(self, latents: Sequence[Undecoded]) -> list[Image.Image | Failure]:
        """One result per latent, in order; sizes may differ."""
        results: dict[Ticket, Image.Image | Failure] = {}
        for size in dict.fromkeys(latent.size for latent in latents):
            same = [latent for latent in latents if latent.size == size]
            decoded = self._elastic.run(size, same, self._decode, most=self._slice_of(size))
            for latent, result in zip(same, decoded):
                results[latent.ticket] = NO_MEMORY if result is None else result
        return [results[latent.ticket] for latent in latents]

    def _decode(self, latents: Sequence[Undecoded]) -> list[Image.Image | Failure]:
        if self._lanes is None:
            return self._decode_rows(latents)
        started, size = time.perf_counter(), latents[0].size
        over = len(latents) % self._lanes.count if self._seconds.get(size, 0.0) > WORTH_ALL_CORES else 0
        even, rest = latents[: len(latents) - over], latents[len(latents) - over :]
        decoded = self._lanes.map(self._decode_rows, self._lanes.split(even)) if even else []
        decoded += self._lanes.map(self._decode_rows, [rest]) if rest else []
        if not latents[0].preview:  # which may not change how a finished picture is decoded
            self._seconds[size] = (time.perf_counter() - started) / len(latents)
        return [image for part in decoded for image in part]

    def _decode_rows(self, latents: Sequence[Undecoded]) -> list[Image.Image | Failure]:
        rows = torch.cat([latent.latent for latent in latents])
        vae = self._model.vae
        pixels = vae.decode((rows / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0]
        finite = torch.isfinite(pixels).flatten(1).all(dim=1).tolist()
        images = self._processor.postprocess(torch.nan_to_num(pixels), output_type="pil")
        return [image if good else NOT_FINITE for image, good in zip(images, finite)]


class InlineDecoding:
    """Decodes between the denoising steps: right for a CPU, whose cores a second thread would fight for."""

    def __init__(self, decoder: PictureDecoder) -> None:
        self._decoder = decoder
        self._waiting: list[Undecoded] = []

    def put(self, latents: Sequence[Undecoded]) -> None:
        self._waiting += latents

    def take(self, idle: bool) -> list[Decoded]:
        """All that was put since the last call, decoded; ``idle`` is for the other way."""
        latents, self._waiting = self._waiting, []
        return decode_timed(self._decoder, latents)

    def close(self) -> None:
        """Nothing runs."""


class ThreadDecoding:
    """Decodes in a thread, on its own CUDA stream where there is one, while the next steps run."""

    def __init__(self, decoder: PictureDecoder, device: torch.device) -> None:
        self._decoder = decoder
        self._device = device
        self._todo: queue.SimpleQueue[tuple[list[Undecoded], Mark] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[list[Decoded]] = queue.SimpleQueue()
        self._pending = 0
        self._thread = threading.Thread(target=self._work, name="marquee-decode", daemon=True)
        self._thread.start()

    def put(self, latents: Sequence[Undecoded]) -> None:
        if latents:
            self._pending += 1
            self._todo.put((list(latents), _mark(self._device)))

    def take(self, idle: bool) -> list[Decoded]:
        """What is ready; waits for one batch where the engine is ``idle``."""
        decoded: list[Decoded] = []
        while self._pending and (idle or not self._done.empty()):
            decoded += self._done.get()
            self._pending -= 1
            idle = False
        return decoded

    def close(self) -> None:
        self._todo.put(None)
        self._thread.join()

    def _work(self) -> None:
        with _own_stream(self._device) as stream:
            for latents, mark in iter(self._todo.get, None):
                self._done.put(self._attempt(latents, mark, stream))

    def _attempt(
        self, latents: list[Undecoded], mark: Mark, stream: torch.cuda.Stream | None
    ) -> list[Decoded]:
        try:
            if mark is not None and stream is not None:
                stream.wait_event(mark)
            return decode_timed(self._decoder, latents)
        except Exception:  # this thread must live: pictures that never come would block the engine
            logger.exception("decoding %d pictures failed", len(latents))
            return [Decoded(latent, BROKEN, 0.0) for latent in latents]


Decoding = Union[InlineDecoding, ThreadDecoding]


def start_decoding(model: Model, slice_of: Callable[[Size], int], in_thread: bool) -> Decoding:
    decoder = PictureDecoder(model, slice_of, getattr(model.unet, "lanes", None))
    return ThreadDecoding(decoder, model.device) if in_thread else InlineDecoding(decoder)


def decode_timed(decoder: PictureDecoder, latents: Sequence[Undecoded]) -> list[Decoded]:
    if not latents:
        return []
    started = time.perf_counter()
    with torch.inference_mode():
        results: list[Image.Image | bytes | Failure] = [
            preview_file(result) if latent.preview and isinstance(result, Image.Image) else result
            for latent, result in zip(latents, decoder.decode(latents))
        ]
    seconds = time.perf_counter() - started
    return [Decoded(latent, result, seconds) for latent, result in zip(latents, results)]


def _mark(device: torch.device) -> Mark:
    """An event behind the work that made the latents; None on a CPU, where that work is already done."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


@contextlib.contextmanager
def _own_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    if device.type != "cuda":
        yield None
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield stream
