"""What the archive does with a picture that its safety checker flags. Torch-free."""

from __future__ import annotations

SAFETY = {"send": "sent", "blur": "blurred", "withhold": "withheld"}
"""The values of ``marquee.safety`` in model-config.yaml, and what each has done to a flagged picture."""
DEFAULT_SAFETY = "blur"
"""Used where the archive has a checker and model-config.yaml names no action. A blurred picture shows nothing
by accident, and it does not look like a failure."""
