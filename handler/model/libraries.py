"""The libraries are kept from the network, from drawing progress bars and from logging prompts."""

from __future__ import annotations

import os

LIBRARY_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_library_environment() -> None:
    """Call this before diffusers or transformers are first imported: they read it then."""
    os.environ.update(LIBRARY_ENVIRONMENT)


def quiet_libraries() -> None:
    """Errors only, wherever they were first imported: their warnings quote the prompts they truncate."""
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
