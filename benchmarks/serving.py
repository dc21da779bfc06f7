"""The embedded model served by all: M2 and M3 against each side, the guard and the three plots' points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks import load, plots, served, sides, traffic
from benchmarks.ratio import Ratio
from benchmarks.served import Effort

PACKAGES: dict[str, Callable[[Path, Path], sides.Side]] = {
    "litserve==0.2.19": sides.litserve,
    "bentoml==1.4.39": sides.bentoml,
    "ray[serve]==2.60.0": sides.ray_serve,
}
Tell = Callable[[str], None]

TUNED = (
    "tuning: every side gets GOMP_SPINCOUNT=10000 and the faster of one and two threads, the tutorial's"
    " handler of 1 worker x 2 threads and 2 x 1. OMP_WAIT_POLICY=PASSIVE is slower on virtual cores:"
    " waking a thread there costs more than a small operation (one eager UNet call of 32 rows: 164 ms"
    " against 57)."
)
TUNING_REQUESTS = 32


@dataclass
class Findings:
    """What the served part found, in the order it was found."""

    ratios: list[Ratio] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    latency: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    throughput: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    joins: list[load.Answer] = field(default_factory=list)


def compare(
    model: Path, folder: Path, effort: Effort, tell: Tell, server: AbstractContextManager[str] | None = None
) -> Findings:
    """Serve ``model`` by marquee and, one after the other, by each peer, and measure both in turns.

    ``server`` serves an archive made before; without it the embedded model's is made here.
    """
    found = Findings(remarks=[TUNED])
    with server or our_server(model, folder) as ours:
        our_rate = served.mixed_saturation(ours, effort.requests)
        _against_tutorial(ours, model, folder, effort, found, tell)
        _against_batching(ours, our_rate, model, folder, effort, found, tell)
        if effort.peers is not None:
            for package, side in PACKAGES.items():
                _against_package(ours, our_rate, package, side, (model, folder), effort.peers, found, tell)
        tell("5 % poison")
        guard, failed = served.poison_guard(ours, effort, our_rate)
        found.ratios.append(guard)
        found.remarks.append(f"innocent requests that failed beside the poisoned ones: {failed}")
        if effort.peers is not None:
            found.latency["marquee"] = _latencies(ours, our_rate, effort)
            found.throughput["marquee"] = _throughputs(ours, effort)
            found.joins = load.run_open(ours, traffic.mixed(), 0.8 * our_rate, min(effort.seconds, 6.0))
    return found


def draw_plots(found: Findings, folder: Path) -> list[Path]:
    """The three plots, where there is anything to show."""
    if not found.joins:
        return []
    pictures = [folder / f"{name}.png" for name in ("latency", "throughput", "timeline")]
    plots.latency_against_load(found.latency, pictures[0])
    plots.throughput_against_batch(found.throughput, pictures[1])
    plots.timeline(found.joins, pictures[2])
    return pictures


@contextmanager
def our_server(model: Path, folder: Path) -> Iterator[str]:
    """marquee's own archive of ``model`` with a compiled UNet, for new TorchServe, in real TorchServe."""
    from pipeline.archive.build import BuildConfig, build
    from pipeline.progress import Silent

    mar = folder / "marquee" / "model.mar"
    mar.parent.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((model.parent / "model-config.yaml").read_text())
    settings["marquee"]["max_batch"] = sides.BATCH
    config = folder / "marquee" / "model-config.yaml"
    config.write_text(yaml.safe_dump(settings))
    build(BuildConfig(str(model), mar, config, container="marquee", compiled=True), Silent())
    with sides.torchserve(mar, threads=2) as url:
        yield url


def _against_tutorial(
    ours: str, model: Path, folder: Path, effort: Effort, found: Findings, tell: Tell
) -> None:
    archives = {
        (workers, threads): sides.pack_peer("tutorial_handler", model, folder, workers, batch=1)
        for workers, threads in (((1, 2), (2, 1)) if effort.tune else ((2, 1),))
    }
    rates: dict[tuple[int, int], float] = {}
    for (workers, threads), mar in archives.items() if effort.tune else ():
        name = f"tutorial handler, {workers} x {threads}"
        with sides.torchserve(mar, threads) as url:
            rates[workers, threads] = _tuning_rate(url, name, tell)
    workers, threads = max(archives, key=lambda shape: rates.get(shape, 0.0))
    with sides.torchserve(archives[workers, threads], threads) as url:
        name = f"tutorial handler, {workers} x {threads}"
        _add(found, served.saturated(ours, url, name, effort, 4.0), tell)
        if effort.peers is not None:
            found.latency["tutorial handler"] = _latencies(url, rates[workers, threads] / 1.5, effort)


def _against_batching(
    ours: str, our_rate: float, model: Path, folder: Path, effort: Effort, found: Findings, tell: Tell
) -> None:
    mar = sides.pack_peer("batching_handler", model, folder, 1, batch=sides.BATCH)
    side = sides.Side("TorchServe batching", lambda threads: sides.torchserve(mar, threads))
    with side.start(_best_threads(side, tell) if effort.tune else 1) as url:
        _all_three(ours, url, side.name, our_rate, (None, 4.0, 1.8), effort, found, tell)
        if effort.peers is not None:
            found.throughput["TorchServe batching"] = _throughputs(url, effort)


def _against_package(
    ours: str,
    our_rate: float,
    package: str,
    make_side: Callable[[Path, Path], sides.Side],
    places: tuple[Path, Path],
    effort: Effort,
    found: Findings,
    tell: Tell,
) -> None:
    model, folder = places
    python = sides.make_environment(package, folder)
    if python is None:
        found.remarks.append(f"{package} does not install here, so it is not measured")
        return
    side = make_side(python, model)
    try:
        with side.start(_best_threads(side, tell) if effort.tune else 1) as url:
            _all_three(ours, url, side.name, our_rate, (1.0, 1.0, 1.0), effort, found, tell)
    except sides.NoPicture as error:
        found.remarks.append(f"{side.name} is not measured: {error}")


def _best_threads(side: sides.Side, tell: Tell) -> int:
    rates: dict[int, float] = {}
    for threads in (1, 2):
        with side.start(threads) as url:
            rates[threads] = _tuning_rate(url, f"{side.name}, {threads} thread(s)", tell)
    return max(rates, key=lambda threads: rates[threads])


def _tuning_rate(url: str, name: str, tell: Tell) -> float:
    answers = load.run_closed(url, traffic.equal(served.STEPS), served.CLIENTS, TUNING_REQUESTS)
    tell(f"tuning {name}: {load.throughput(answers):.2f} pictures/s")
    return load.throughput(answers)


def _all_three(
    ours: str,
    url: str,
    name: str,
    our_rate: float,
    goals: tuple[float | None, float | None, float | None],
    effort: Effort,
    found: Findings,
    tell: Tell,
) -> None:
    their_rate = served.mixed_saturation(url, effort.requests)
    if not their_rate:
        raise sides.NoPicture(f"{name} answers no request of a mixed load")
    _add(found, served.saturated(ours, url, name, effort, goals[0]), tell)
    _add(found, served.short_median(ours, url, name, effort, their_rate, goals[1]), tell)
    _add(found, served.goodput(ours, url, name, effort, our_rate, goals[2]), tell)
    if effort.tune:
        found.latency[name] = _latencies(url, their_rate, effort)


def _add(found: Findings, ratio: Ratio, tell: Tell) -> None:
    found.ratios.append(ratio)
    tell(f"{ratio.name}, against {ratio.other_side}: {ratio.value:.2f}")


def _latencies(url: str, rate: float, effort: Effort) -> list[tuple[float, float]]:
    """Median seconds at 0.3, 0.6 and 0.9 of ``rate`` with 10 to 50 steps."""
    offered, seconds = [share * rate for share in (0.3, 0.6, 0.9)], effort.seconds / 2
    return [(r, load.median_seconds(load.run_open(url, traffic.mixed(), r, seconds))) for r in offered]


def _throughputs(url: str, effort: Effort) -> list[tuple[float, float]]:
    """Pictures per second of 1, 4 and 16 clients."""
    counts = (1, 4, 16)
    requests = effort.requests // 2
    return [
        (n, load.throughput(load.run_closed(url, traffic.equal(served.STEPS), n, max(n, requests))))
        for n in counts
    ]
