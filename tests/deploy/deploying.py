"""`marquee deploy` in a process of its own, forked from one that has imported Google's SDK already."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["google.cloud.aiplatform_v1", "google.cloud.storage", "pipeline.deploy.flow", "pipeline.cli"]
)


def start_deploy(cloud: Path, archive: Path, output: Path) -> ForkServerProcess:
    process = FORKS.Process(target=_deploy, args=(str(cloud), str(archive), str(output)))
    process.start()
    return process


def _deploy(cloud: str, archive: str, output: str) -> None:
    os.environ["MARQUEE_CLOUD"] = cloud
    sys.argv = ["marquee", "deploy", "--profile", "p100", "--set", f"archive={archive}"]
    with open(output, "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    from pipeline.cli import main

    main()
