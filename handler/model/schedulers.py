"""diffusers' schedulers by the names that a request uses."""

from __future__ import annotations

from typing import Any

import diffusers

from handler.contract.schedulers import SCHEDULERS


def make_scheduler(name: str, template: Any) -> Any:
    """A fresh diffusers scheduler of that canonical name with the noise schedule of ``template``."""
    kind = SCHEDULERS[name]
    return getattr(diffusers, kind.class_name).from_config(template.config, **kind.overrides)
