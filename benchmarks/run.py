"""``make bench``: every ratio of docs/benchmarks.md, both sides in one run.

python -m benchmarks.run [--quick] [--gpu] [--only served|mid|archive]
"""

from __future__ import annotations

import argparse
import time
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


def main() -> None:
    """Measure, print the table and write docs/benchmarks.md."""
    options = _options()
    folder = ROOT / "out" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    effort = QUICK if options.quick else FULL
    page = folder / "quick.md" if options.quick or options.only else ROOT / "docs" / "benchmarks.md"
    ratios, remarks, plots = list[Ratio](), list[str](), list[Path]()
    promised = list[promises.Promise]()
    if options.only in (None, "served"):
        found = serving.compare(EMBEDDED, folder, effort, _tell)
        plots = serving.draw_plots(found, page.with_suffix(""))
        ratios += found.ratios
        remarks += found.remarks
        strict, remark = strict_mode(EMBEDDED, EMBEDDED.parent, effort.rounds)
        ratios.append(strict)
        remarks.append(remark)
        promised = promises.measure(EMBEDDED, folder, effort.rounds, _tell)
    if options.gpu or (options.only in (None, "mid") and not options.quick):
        ratios += _real_shapes(core.GPU if options.gpu else core.MID, folder, effort.rounds)
    if options.only in (None, "archive") and not (options.gpu or options.quick):
        ratios.append(_archive())
    if not options.gpu:
        remarks.append(
            "H100/H200 column: not measured, no GPU machine was lent; `make bench ARGS=--gpu` measures it"
        )
    report.write(ratios, promised, remarks, plots, page)
    print(report.table(ratios), report.promise_table(promised), *remarks, f"written: {page}", sep="\n")


def _real_shapes(scale: core.Scale, folder: Path, rounds: int) -> list[Ratio]:
    _tell(f"building SD 1.5's real shapes for {scale.name}; compiling takes minutes")
    built = core.build_scale(scale, EMBEDDED / "tokenizer", folder)
    engine, model, settings = core.load_engine(built)
    ratios = list[Ratio]()
    for ratio in (
        lambda: core.single_image(scale, built, engine, model, settings, rounds),
        lambda: core.useful_share(scale, engine, model, settings, rounds),
        lambda: core.through_torchserve(scale, built, engine, settings, min(rounds, 2)),
        lambda: core.cold_start(scale, built, rounds),
    ):
        ratios.append(ratio())
        _tell(f"{ratios[-1].name}: {ratios[-1].value:.2f}")
    return ratios


def _archive() -> Ratio:
    """M8: seconds from 2 GB of weights to an archive, the official archiver's default against ours."""
    from benchmarks.archive import compare

    seconds = compare()
    ours, default = tuple(seconds["marquee"]), tuple(seconds["default"])
    return Ratio("M8 weights to archive", "torch-model-archiver", "s", ours, default, True, 12.0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="about ten minutes: one short round, no mid part"
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
