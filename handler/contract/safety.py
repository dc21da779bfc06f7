"""What the archive does with a picture that its safety checker flags. Torch-free."""

from __future__ import annotations

SAFETY = {"send": "sent", "blur": "blurred", "withhold": "withheld"}
"""The values of ``marquee.safety`` in model-config.yaml, and what each has done to a flagged picture."""
DEFAULT_SAFETY = "blur"
"""Where the archive has a checker and model-config.yaml says nothing: nobody is shown it by accident, and
nobody takes it for a failure."""
