"""``make bench``: every ratio of docs/benchmarks.md, both sides in one run.

python -m benchmarks.run [--quick] [--gpu] [--only served|mid|archive]
"""

from __future__ import annotations

import argparse
import gc
import shutil
import time
import zipfile
from pathlib import Path

from benchmarks import core, promises, report, serving, sides
from benchmarks.ratio import Ratio
from benchmarks.served import Effort
from benchmarks.strict import strict_mode

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "model_artifacts" / "shapes"
FULL = Effort(rounds=3, requests=64, seconds=10.0)
QUICK = Effort(rounds=1, requests=32, seconds=6.0, whole=False)


class Page:
    """One section of docs/benchmarks.md; the page is written again after every figure that takes long."""

    def __init__(self, title: str, path: Path) -> None:
        self.section, self._path = report.Section(title), path
        self._started = time.monotonic()

    def write(self) -> None:
        self.section.minutes = (time.monotonic() - self._started) / 60
        report.write(self.section, self._path)

    def add(self, ratio: Ratio) -> None:
        _tell(f"{ratio.name}: {ratio.value:.2f}")
        self.section.ratios.append(ratio)
        self.write()


def main() -> None:
    """Measure and write the sections of docs/benchmarks.md; --quick writes out/bench/quick.md instead."""
    options = _options()
    folder = ROOT / "out" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    effort = QUICK if options.quick else FULL
    path = folder / "quick.md" if options.quick else ROOT / "docs" / "benchmarks.md"
    parts = {options.only} if options.only else {"served"} if options.quick else {"served", "mid", "archive"}
    if options.gpu:
        _gpu(Page(report.GPU, path), folder, effort)
        return
    if "served" in parts:
        _served(Page(report.SERVED, path), folder, effort)
    if "archive" in parts:
        _archive(Page(report.ARCHIVE, path))
    if "mid" in parts:
        _real_shapes(Page(report.REAL_SHAPES, path), core.MID, folder, effort.rounds)
    print(path.read_text())


def _served(page: Page, folder: Path, effort: Effort) -> None:
    section, found = page.section, serving.compare(EMBEDDED, folder, effort, _tell)
    section.plots += serving.draw_plots(found, ROOT / "docs" / "benchmarks")
    section.ratios += found.ratios
    section.remarks += found.remarks
    section.promises += found.promises
    page.write()
    _strict(page, _unpacked(folder / "marquee" / "model.mar"), effort)
    if effort.whole:
        section.promises += promises.measure(EMBEDDED, folder, effort.rounds, _tell)
        page.write()


def _gpu(page: Page, folder: Path, effort: Effort) -> None:
    built = _real_shapes(page, core.GPU, folder, effort.rounds)
    server = sides.torchserve(built.mar, threads=2)
    found = serving.compare(built.model_folder, folder, effort, _tell, server, goodput_goal=1.5)
    page.section.ratios += found.ratios
    page.section.promises += found.promises
    page.section.remarks += found.remarks
    page.section.plots += serving.draw_plots(found, ROOT / "docs" / "benchmarks" / "gpu")
    page.write()
    _strict(page, built.root, effort)


def _unpacked(mar: Path) -> Path:
    root = mar.with_name("unpacked")
    shutil.rmtree(root, ignore_errors=True)
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(root)
    return root


def _strict(page: Page, root: Path, effort: Effort) -> None:
    ratio, remark = strict_mode(root, effort.rounds)
    page.section.remarks.append(remark)
    page.add(ratio)


def _real_shapes(page: Page, scale: core.Scale, folder: Path, rounds: int) -> core.Built:
    _tell(f"building SD 1.5's real shapes for {scale.name}; compiling takes minutes")
    built = core.build_scale(scale, EMBEDDED / "tokenizer", folder)
    engine, model, settings = core.load_engine(built.root)
    page.add(core.single_image(scale, built, engine, model, settings, rounds))
    page.add(core.useful_share(scale, engine, model, settings, rounds))
    gc.collect()  # stock diffusers' copy of the model: the server needs its memory
    page.add(core.through_torchserve(scale, built, engine, settings, min(rounds, 2)))
    page.add(core.cold_start(scale, built, rounds))
    engine.close()
    return built


def _archive(page: Page) -> None:
    """Seconds to pack a GB of weights into an archive: the official archiver's default against ours."""
    from benchmarks.archive import WEIGHT_BYTES, compare

    rows, _ = compare()
    per_gb = {tool: tuple(s / (WEIGHT_BYTES / 1e9) for s, _ in found) for tool, found in rows.items()}
    name, note = "time to pack weights into model.mar", "every byte of every archive compared with its source"
    page.add(
        Ratio(name, "torch-model-archiver", "s/GB", per_gb["marquee"], per_gb["default"], True, 12.0, note)
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="under five minutes: one short round of the first section, no packages",
    )
    parser.add_argument("--gpu", action="store_true", help="SD 1.5 at 512x512 on this machine's GPU")
    parser.add_argument("--only", choices=("served", "mid", "archive"), help="one section of the page")
    return parser.parse_args()


def _tell(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    main()
