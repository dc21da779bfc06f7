"""What a request gets where it says nothing, and what it may ask for at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defaults:
    """What a request gets where it says nothing; the same names, units and ranges as in a request."""

    negative_prompt: str = ""
    num_inference_steps: int = 30
    guidance_scale: float = 7.5
    width: int = 512
    height: int = 512
    scheduler: str = "PNDM"
    output_format: str = "jpeg"
    quality: int = 90
    response: str = "image"


@dataclass(frozen=True)
class Limits:
    """What a request may ask for at most; widths and heights in pixels.
    ``max_previews`` is of one picture.

    ``max_request_bytes`` bounds a body: Vertex AI lets 10,000,000 bytes through to a dedicated endpoint
    (pipeline/rules/rules.yaml). ``max_response_bytes`` bounds a reply: 6,553,500 bytes is TorchServe's stock
    max_response_size, and it kills the worker for one byte more.

    A picture that comes in has at most ``max_image_bytes`` as a file, which as base64 fit TorchServe's stock
    max_request_size of 6,553,500, and ``max_image_pixels``; reading it takes up to 20 bytes a pixel.

    ``max_images_per_prompt`` bounds the pictures of one instance, ``max_instances`` the instances of a
    request and all of its pictures.
    """

    min_width: int = 32
    min_height: int = 32
    max_width: int = 1024
    max_height: int = 1024
    max_pixels: int = 1024 * 1024
    max_num_inference_steps: int = 100
    max_guidance_scale: float = 30.0
    max_instances: int = 16
    max_images_per_prompt: int = 8
    max_prompt_characters: int = 1000
    max_request_bytes: int = 10_000_000
    max_response_bytes: int = 6_553_500
    max_image_bytes: int = 4_500_000
    max_image_pixels: int = 4096 * 4096
    max_previews: int = 8
