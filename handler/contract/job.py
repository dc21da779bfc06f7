"""What travels through the generation core: a validated Job in, a Picture or a Failure out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class SourcePicture:
    """A picture that came with a request: RGB as the camera held it, or a mask in grey (mode L).

    ``sha256`` is the hex digest of the file that came; a receipt holds it instead of the picture.
    """

    image: Image.Image = field(repr=False)
    sha256: str


@dataclass(frozen=True)
class LoraWeight:
    """A LoRA of the archive, and how strongly a picture follows it; 0: not at all, 1: as it was trained."""

    name: str
    weight: float


@dataclass(frozen=True)
class Job:
    """One picture to draw, every field checked against the archive's limits and filled with its defaults.

    ``seed`` is 0 to 2**64 - 1; ``width`` and ``height`` are pixels, multiples of 8; ``scheduler`` is a key of
    ``SCHEDULERS``; ``deadline_seconds`` bounds the wait in the queue, None: no deadline. ``image`` is changed
    with ``strength`` (0 to 1), inside the white part of ``mask_image`` alone where there is one.
    ``guidance_until`` is the share of the steps, 0 to 1, that are guided. ``previews`` is how many
    unfinished pictures the progress shows. ``metadata``: the settings go into the picture's file.
    """

    prompt: str
    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    seed: int
    width: int
    height: int
    scheduler: str
    output_format: str
    quality: int
    response: str
    deadline_seconds: float | None = None
    image: SourcePicture | None = None
    mask_image: SourcePicture | None = None
    strength: float = 1.0
    guidance_until: float = 1.0
    loras: tuple[LoraWeight, ...] = ()
    previews: int = 0
    metadata: bool = False

    @property
    def family(self) -> str:
        """Which of diffusers' pipelines draws it: text_to_image, image_to_image or inpaint."""
        if self.image is None:
            return "text_to_image"
        return "image_to_image" if self.mask_image is None else "inpaint"


@dataclass(frozen=True)
class CutText:
    """A text with more tokens than the text encoder takes; ``removed`` is the end that was not used.

    The special tokens at both ends do not count.
    """

    tokens: int
    tokens_taken: int
    removed: str


@dataclass(frozen=True)
class Safety:
    """A safety checker's verdict on a picture, and what was done: "sent", "blurred" or "withheld"."""

    flagged: bool
    action: str


@dataclass(frozen=True)
class PreviewCost:
    """What the previews of a picture took: the seconds of decoding them, and how many there were.

    ``dropped`` could not be decoded in time. The seconds are a part of those of "denoise" on a CPU, where
    nothing is drawn meanwhile.
    """

    seconds: float
    sent: int
    dropped: int


@dataclass(frozen=True)
class Picture:
    """A finished RGB picture and the seconds each stage took ("queue", "denoise", "decode" with the check).

    ``cut_texts`` has the fields ("prompt", "negative_prompt") whose texts were too long. ``safety`` is None
    where the archive has no checker, ``previews`` where none were to be shown. ``image`` is what may be sent:
    blurred, or None where it is withheld.
    """

    image: Image.Image | None
    seconds: dict[str, float]
    cut_texts: Mapping[str, CutText] = field(default_factory=dict)
    safety: Safety | None = None
    previews: PreviewCost | None = None

    @property
    def flagged(self) -> bool | None:
        """The safety checker's verdict; None where the archive has no checker."""
        return None if self.safety is None else self.safety.flagged


@dataclass(frozen=True)
class Failure:
    """Why there is no picture: an HTTP status, a stable code in snake_case and a sentence for the caller.

    ``retry_after_seconds`` goes with 429: when it is worth asking again.
    """

    status: int
    code: str
    message: str
    retry_after_seconds: int | None = None


Outcome = Union[Picture, Failure]
