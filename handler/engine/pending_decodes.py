"""Images between their last denoising step and their picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Callable

import torch

from handler.contract.job import Failure, Outcome, Picture
from handler.engine.decoder import Decoded, Decoding, Undecoded
from handler.engine.memory.elastic import NO_MEMORY
from handler.engine.previews import Foreseen, PreviewLine
from handler.engine.ticket import LiveImage, Ticket

MOST_STALLS = 3
"""How many times in a row an image may wait for memory before it fails."""


class PendingDecodes:
    """Has the images decoded, and again where memory was short. A forgotten image gives no outcome."""

    def __init__(self, decoding: Decoding, clock: Callable[[], float]) -> None:
        self._decoding, self._clock = decoding, clock
        self._images: dict[Ticket, LiveImage] = {}
        self._previews = PreviewLine()
        self._live: Collection[LiveImage] = ()

    def __len__(self) -> int:
        return len(self._images)

    def put(self, drawn: Sequence[tuple[LiveImage, torch.Tensor]]) -> None:
        """Images with their latents, (1, 4, h, w) each."""
        self._images.update((image.ticket, image) for image, _ in drawn)
        self._decoding.put([Undecoded(image.ticket, image.size, latent) for image, latent in drawn])

    def put_previews(self, foreseen: Sequence[Foreseen], live: Collection[LiveImage]) -> None:
        """Has one preview of a ``live`` image decoded, where there is one and no finished picture waits."""
        self._live = live
        self._previews.wait(foreseen, live)
        if not self._images and (shown := self._previews.next()):
            self._decoding.put([Undecoded(shown.image.ticket, shown.image.size, shown.latent, preview=True)])

    def forget(self, ticket: Ticket) -> bool:
        """Drops the job's image; returns whether it was here."""
        return self._images.pop(ticket, None) is not None

    def forget_all(self) -> list[Ticket]:
        """Drops all images; returns their tickets."""
        tickets = list(self._images)
        self._images.clear()
        return tickets

    def take(self, idle: bool) -> list[tuple[Ticket, Outcome]]:
        """The pictures that are ready; waits for some where the engine is ``idle``."""
        outcomes: list[tuple[Ticket, Outcome]] = []
        for decoded in self._decoding.take(idle):
            ticket = decoded.latent.ticket
            if decoded.latent.preview:
                file = decoded.result if isinstance(decoded.result, bytes) else None
                self._previews.arrive(file, decoded.seconds, self._wanted())
                continue
            image = self._images.pop(ticket, None)
            if image is None:
                continue
            if decoded.result is NO_MEMORY and image.stalls < MOST_STALLS:
                image.stalls += 1
                self._images[ticket] = image
                self._decoding.put([decoded.latent])
            else:
                outcomes.append((ticket, self._outcome(image, decoded)))
        return outcomes

    def close(self) -> None:
        self._decoding.close()

    def _wanted(self) -> set[Ticket]:
        """Images that are drawn or decoded now."""
        return {*self._images, *(image.ticket for image in self._live)}

    def _outcome(self, image: LiveImage, decoded: Decoded) -> Outcome:
        if isinstance(decoded.result, Failure):
            return decoded.result
        assert not isinstance(decoded.result, bytes)
        drawing = self._clock() - image.admitted_at - decoded.seconds
        seconds = {"queue": image.queue_seconds, "denoise": max(0.0, drawing), "decode": decoded.seconds}
        cost = None if image.previews is None else image.previews.cost
        return Picture(decoded.result, seconds, image.prompts.cut_texts, decoded.safety, cost)
