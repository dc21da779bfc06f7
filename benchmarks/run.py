"""``make bench``: every ratio of docs/benchmarks.md, both sides in one run.

python -m benchmarks.run [--quick] [--gpu] [--only served|mid|archive]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import core, promises, report, serving
from benchmarks.ratio import Ratio
from benchmarks.served import Effort
from benchmarks.strict import strict_mode

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "model_artifacts" / "shapes"
PEERS = Effort(rounds=2, requests=64, seconds=16.0)
FULL = Effort(rounds=3, requests=96, seconds=24.0, peers=PEERS)
QUICK = Effort(rounds=1, requests=48, seconds=10.0)


@dataclass
class Page:
    """docs/benchmarks.md as far as it is measured; written again after every figure that takes long."""

    path: Path
    ratios: list[Ratio] = field(default_factory=list)
    promises: list[promises.Promise] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    plots: list[Path] = field(default_factory=list)

    def write(self) -> None:
        report.write(self.ratios, self.promises, self.remarks, self.plots, self.path)

    def add(self, ratio: Ratio) -> None:
        _tell(f"{ratio.name}: {ratio.value:.2f}")
        self.ratios.append(ratio)
        self.write()


def main() -> None:
    """Measure, print the table and write docs/benchmarks.md."""
    options = _options()
    folder = ROOT / "out" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    effort = QUICK if options.quick else FULL
    partial = options.quick or options.only
    page = Page(folder / "quick.md" if partial else ROOT / "docs" / "benchmarks.md")
    if not options.gpu:
        page.remarks.append(
            "H100/H200 column: not measured, no GPU machine was lent; `make bench ARGS=--gpu` measures it"
        )
    if options.only in (None, "served"):
        _served(page, folder, effort)
    if options.only in (None, "archive") and not (options.gpu or options.quick):
        page.add(_archive())
    if options.gpu or (options.only in (None, "mid") and not options.quick):
        _real_shapes(page, core.GPU if options.gpu else core.MID, folder, effort.rounds)
    page.write()
    print(page.path.read_text())


def _served(page: Page, folder: Path, effort: Effort) -> None:
    found = serving.compare(EMBEDDED, folder, effort, _tell)
    page.plots += serving.draw_plots(found, page.path.with_suffix(""))
    page.ratios += found.ratios
    page.remarks += found.remarks
    strict, remark = strict_mode(EMBEDDED, EMBEDDED.parent, effort.rounds)
    page.remarks.append(remark)
    page.add(strict)
    page.promises += promises.measure(EMBEDDED, folder, effort.rounds, _tell)
    page.write()


def _real_shapes(page: Page, scale: core.Scale, folder: Path, rounds: int) -> None:
    _tell(f"building SD 1.5's real shapes for {scale.name}; compiling takes minutes")
    built = core.build_scale(scale, EMBEDDED / "tokenizer", folder)
    engine, model, settings = core.load_engine(built)
    page.add(core.single_image(scale, built, engine, model, settings, rounds))
    page.add(core.useful_share(scale, engine, model, settings, rounds))
    page.add(core.cold_start(scale, built, rounds))
    page.add(core.through_torchserve(scale, built, engine, settings, min(rounds, 2)))


def _archive() -> Ratio:
    """M8: seconds from 2 GB of weights to an archive, the official archiver's default against ours."""
    from benchmarks.archive import compare

    seconds = compare()
    ours, default = tuple(seconds["marquee"]), tuple(seconds["default"])
    return Ratio("M8 weights to archive", "torch-model-archiver", "s", ours, default, True, 12.0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="under five minutes: one short round, no packages, no mid part"
    )
    parser.add_argument("--gpu", action="store_true", help="SD 1.5 at 512x512 on this machine's GPU")
    parser.add_argument(
        "--only", choices=("served", "mid", "archive"), help="one part; the page stays as it is"
    )
    return parser.parse_args()


def _tell(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    main()
