"""The environment variables that marquee reads: no other file of pipeline/ reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True)
class Environment:
    """The variables of one moment; a later change in the process does not reach it."""

    variables: Mapping[str, str]

    @property
    def cloud_folder(self) -> Path:
        """The folder of the local cloud: $MARQUEE_CLOUD, or ~/.marquee/cloud."""
        return Path(self.variables.get("MARQUEE_CLOUD") or Path.home() / ".marquee" / "cloud")

    @property
    def rehearsal_folder(self) -> Path:
        """Where the twin is kept: $MARQUEE_REHEARSAL, or ~/.cache/marquee/rehearsal."""
        given = self.variables.get("MARQUEE_REHEARSAL")
        return Path(given or Path.home() / ".cache" / "marquee" / "rehearsal")

    @property
    def traffic_seed(self) -> str | None:
        """$MARQUEE_TRAFFIC_SEED: the local endpoints' choices among deployed models repeat with it."""
        return self.variables.get("MARQUEE_TRAFFIC_SEED")


def read_environment() -> Environment:
    """The environment as it is now."""
    return Environment(MappingProxyType(dict(os.environ)))
