"""`python -m benchmarks.archive`: marquee's archive writer against torch-model-archiver, in turns.

Writes docs/archive-benchmark.md. Needs 5 GB in the temporary folder and some minutes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "archive-benchmark.md"
WEIGHT_BYTES = 1_000_000_000
ROUNDS = 3
TOOLS = ("marquee", "zip-store", "default")
SINGLE = """
import sys
from pathlib import Path
from pipeline.archive.layout import file_member
from pipeline.archive.writer import write_archive
from pipeline.progress import Silent
folder = Path(sys.argv[1])
members = [file_member(str(p.relative_to(folder)), p) for p in folder.rglob("*") if p.is_file()]
write_archive(Path(sys.argv[2]), members, Silent())
"""


def make_inputs(folder: Path) -> Path:
    """Three fp16 safetensors files of 1 GB in all, normally distributed as weights are, and a handler."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    for name, share in (("unet", 0.80), ("vae", 0.08), ("text_encoder", 0.12)):
        (folder / "inputs" / "model" / name).mkdir(parents=True)
        count = int(WEIGHT_BYTES * share / 2)
        tensor = (torch.randn(count, generator=generator) * 0.02).half()
        save_file({"weight": tensor}, folder / "inputs" / "model" / name / "model.safetensors")
    (folder / "handler.py").write_text("def handle(data, context):\n    return data\n")
    return folder / "inputs"


def run(tool: str, inputs: Path, work: Path) -> tuple[float, float, Path]:
    """One timed build: (seconds, peak resident MB of the process, archive)."""
    out = work / f"{tool}.mar"
    shutil.rmtree(work / "tmp", ignore_errors=True)
    (work / "tmp").mkdir()
    command = [sys.executable, "-c", SINGLE, str(inputs), str(out)]
    if tool != "marquee":
        archiver = str(Path(sys.executable).parent / "torch-model-archiver")
        command = [archiver, "--model-name", tool, "--version", "1.0", "--handler", str(work / "handler.py")]
        command += [
            "--extra-files",
            str(inputs),
            "--export-path",
            str(work),
            "--archive-format",
            tool,
            "--force",
        ]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(work / "tmp")})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{tool} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / 1024, out


def verify(archive: Path, inputs: Path) -> None:
    """Every input byte is in the archive; raises SystemExit where one is not."""
    with zipfile.ZipFile(archive) as file:
        for source in sorted(path for path in inputs.rglob("*") if path.is_file()):
            with source.open("rb") as expected, file.open(source.relative_to(inputs).as_posix()) as packed:
                if digest(expected) != digest(packed):
                    raise SystemExit(f"{archive}: {source} differs")


def digest(file: object) -> str:
    """SHA-256 of an open binary file."""
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def compare() -> tuple[dict[str, list[tuple[float, float]]], dict[str, int]]:
    """(seconds, peak resident MB) of every round by tool, and each tool's archive in bytes."""
    with tempfile.TemporaryDirectory(prefix="marquee-archive-bench-") as name:
        work = Path(name)
        # In a process of its own: a child's peak memory starts at its parent's. Not a fork: OpenMP,
        # which has threads here by then, hangs in forks.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as maker:
            inputs = maker.submit(make_inputs, work).result()
        rows: dict[str, list[tuple[float, float]]] = {tool: [] for tool in TOOLS}
        sizes: dict[str, int] = {}
        for number in range(ROUNDS):
            for tool in TOOLS if number % 2 == 0 else TOOLS[::-1]:
                seconds, memory, archive = run(tool, inputs, work)
                verify(archive, inputs)
                sizes[tool] = archive.stat().st_size
                archive.unlink()
                rows[tool].append((seconds, memory))
                print(f"round {number + 1}  {tool:10}  {seconds:7.2f} s  {memory:6.0f} MB", flush=True)
    return rows, sizes


def report(rows: dict[str, list[tuple[float, float]]], sizes: dict[str, int]) -> str:
    """The page: medians, ratios, peak memory."""
    medians = {tool: statistics.median(seconds for seconds, _ in found) for tool, found in rows.items()}
    lines = [
        "# Building the archive: marquee against torch-model-archiver 0.12",
        "",
        f"{WEIGHT_BYTES / 1e9:.0f} GB of fp16 safetensors in three files, {ROUNDS} rounds. The tools take",
        "turns; after each build every input byte is compared with the archive. marquee's time includes the",
        "SHA-256 of every file and the fsync before the rename; the archiver does neither.",
        f"Run on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores ({platform.machine()}), Python",
        f"{platform.python_version()}, load average {os.getloadavg()[0]:.1f} (a shared machine).",
        "`python -m benchmarks.archive` repeats it.",
        "",
        "| tool | seconds, each round | median | times marquee's | peak memory | archive |",
        "|---|---|---|---|---|---|",
    ]
    for tool, found in rows.items():
        seconds = ", ".join(f"{value:.2f}" for value, _ in found)
        lines.append(
            f"| {tool} | {seconds} | {medians[tool]:.2f} s | {medians[tool] / medians['marquee']:.1f} "
            f"| {max(memory for _, memory in found):.0f} MB | {sizes[tool]:,} B |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    REPORT.write_text(report(*compare()))
    print(f"wrote {REPORT}")
