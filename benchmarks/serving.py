"""The embedded model, served by marquee and by each other system; the points of the three plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

from benchmarks import load, plots, served, sides, traffic
from benchmarks.promises import Promise
from benchmarks.ratio import Ratio
from benchmarks.served import Effort, Pair
from benchmarks.sides import Side, Workers
from benchmarks.stalls import unstalled

PACKAGES: dict[str, Callable[[Path, Path], Side]] = {
    "litserve==0.2.19": sides.litserve,
    "bentoml==1.4.39": sides.bentoml,
    "ray[serve]==2.60.0": sides.ray_serve,
}
Tell = Callable[[str], None]
Goals = tuple[float | None, float | None, float | None]
"""The ratios to reach: of the throughput, of the median wait and of the pictures in time."""

ONE_PICTURE_AT_A_TIME = (Workers(1, 2), Workers(2, 1))
BATCHING = (Workers(1, 1), Workers(1, 2), Workers(2, 1))
AHEAD: Goals = (1.0, 1.0, 1.0)
CODE = (
    "marquee's archive is that of `marquee build --container marquee --compile`; every other system runs"
    ' diffusers as its documents show. In rows with "ours not compiled" marquee runs without compiled code.'
)
TUNED = (
    "tuning: every system gets GOMP_SPINCOUNT=10000 and its fastest number of workers x threads, which stands"
    " behind its name (tried: 1 x 2 and 2 x 1, with batching also 1 x 1)."
    " OMP_WAIT_POLICY=PASSIVE is slower on virtual cores, where waking a thread costs more than a small"
    " operation (one eager UNet call of 32 rows: 164 ms against 57)."
)
RESTING = (
    "LitServe and BentoML are stopped (SIGSTOP) while marquee is measured, because an idle LitServe takes 0.3"
    " of the two cores. Ray Serve's cluster cannot be stopped and takes 0.17 of them from marquee."
)
NOT_TUNED = "a quick run tunes nothing; the workers x threads of the others stand behind their names."
BEHIND = (
    "why another system can have more throughput with 16 clients and equal steps: this is the best case for"
    " whole batches, which a worker draws to the end without any exchange with its server. marquee's worker"
    " exchanges messages with TorchServe twenty times a second, so that requests can join and leave. That"
    " work takes a share of the two cores (the row of strict mode has the same engine without TorchServe)."
)
LOAD_SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""The loads of the latency plot, as shares of our server's throughput of the same mixed requests."""
TUNING_TRIES = 3
TUNING_REQUESTS = 32


@dataclass
class Findings:
    """The results of the served part, in the order in which they were measured."""

    ratios: list[Ratio] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    points: plots.Points = field(default_factory=plots.Points)


@dataclass(frozen=True)
class Comparison:
    """One run: our server's URL, the model that every system serves, the effort, and the findings so far.

    ``loads``: the requests per second that every side is offered for the latency plot.
    ``plain_too``: our archive without compiled code is measured against TorchServe's batching as well.
    """

    ours: str
    model: Path
    folder: Path
    effort: Effort
    found: Findings
    tell: Tell
    loads: tuple[float, ...]
    plain_too: bool

    def against_tutorial(self) -> None:
        side = sides.torchserve_peer("tutorial handler", "tutorial_handler", self.model, self.folder, batch=1)
        workers = self._tuned(side, ONE_PICTURE_AT_A_TIME)
        with side.start(workers) as url:
            name = f"{side.name}, {workers}"
            self._add(served.saturated(Pair(self.ours, url, name), self.effort, 4.0))
            self._measure_points(side.name, url)

    def against_batching(self, goals: Goals) -> None:
        side = sides.torchserve_peer(
            "TorchServe batching", "batching_handler", self.model, self.folder, sides.BATCH
        )
        workers = self._tuned(side, BATCHING)
        with side.start(workers) as url:
            self._all_three(Pair(self.ours, url, f"{side.name}, {workers}"), goals)
            self._measure_points(side.name, url)
            if self.effort.whole and self.plain_too:
                self._plain_archive(url, f"{side.name}, {workers}")

    def against_package(self, package: str, make_side: Callable[[Path, Path], Side]) -> None:
        python = sides.make_environment(package, self.folder)
        if python is None:
            self.found.remarks.append(f"{package} does not install here, so it is not measured")
            return
        side = make_side(python, self.model)
        try:
            workers = self._tuned(side, BATCHING)
            with side.start(workers) as url:
                pair = Pair(self.ours, url, f"{side.name}, {workers}", side.may_rest)
                self._all_three(pair, AHEAD)
                self._measure_points(side.name, url)
        except sides.NoPicture as error:
            self.found.remarks.append(f"{side.name} is not measured: {error}")

    def beside_invalid(self) -> None:
        rate = served.mixed_saturation(self.ours, self.effort.requests)
        ratio, promises = served.beside_invalid(self.ours, self.effort, rate)
        self.found.promises += promises
        self._add(ratio)
        self._measure_points(plots.OURS, self.ours)
        if self.effort.whole:
            self.found.points.joins = load.run_open(self.ours, traffic.mixed(), 0.8 * rate, 6.0)

    def _plain_archive(self, url: str, name: str) -> None:
        with our_server(self.model, self.folder / "plain", compiled=False) as plain:
            pair = Pair(plain, url, f"{name}; ours not compiled")
            their_rate = served.mixed_saturation(url, self.effort.requests)
            self._add(served.saturated(pair, self.effort, None))
            self._add(served.short_median(pair, self.effort, their_rate, None))

    def _all_three(self, pair: Pair, goals: Goals) -> None:
        effort, url, name = self.effort, pair.theirs, pair.other
        our_rate, their_rate = (served.mixed_saturation(side, effort.requests) for side in (self.ours, url))
        if not their_rate:
            raise sides.NoPicture(f"{name} answers no request of a mixed load")
        self._add(served.saturated(pair, effort, goals[0]))
        self._add(served.short_median(pair, effort, their_rate, goals[1]))
        self._add(served.goodput(pair, effort, our_rate, goals[2]))

    def _tuned(self, side: Side, ways: Sequence[Workers]) -> Workers:
        """The fastest number of workers and threads; the last one where nothing is tuned."""
        rates = dict.fromkeys(ways[-1:], 0.0)
        for workers in ways if self.effort.whole else ():
            with side.start(workers) as url:
                tries = [unstalled(partial(_tuning_rate, url, seed)) for seed in range(TUNING_TRIES)]
                rates[workers] = statistics.median(tries)
            self.tell(f"tuning {side.name}, {workers}: {rates[workers]:.2f} pictures/s")
        return max(rates, key=lambda workers: rates[workers])

    def _add(self, ratio: Ratio) -> None:
        self.found.ratios.append(ratio)
        self.tell(f"{ratio.name}, against {ratio.other_side}: {ratio.value:.2f}")

    def _measure_points(self, name: str, url: str) -> None:
        """Measure one side's points for the plots; a quick run draws none."""
        if self.effort.whole:
            self.found.points.latency[name] = self._latencies(url)
            self.found.points.throughput[name] = self._throughputs(url)

    def _latencies(self, url: str) -> list[tuple[float, float]]:
        """Median seconds with 10 to 50 steps at each of ``loads``; a refused request counts as endless."""
        return [(rate, self._median(url, rate)) for rate in self.loads]

    def _median(self, url: str, rate: float) -> float:
        answers = load.run_open(url, traffic.mixed(), rate, self.effort.seconds / 2)
        return statistics.median(answer.seconds if answer.good else math.inf for answer in answers)

    def _throughputs(self, url: str) -> list[tuple[float, float]]:
        """Pictures per second of 1, 4 and 16 clients."""
        requests = self.effort.requests // 2
        return [
            (n, load.throughput(load.run_closed(url, traffic.equal(served.STEPS), n, max(n, requests))))
            for n in (1, 4, 16)
        ]


def compare(
    model: Path,
    folder: Path,
    effort: Effort,
    tell: Tell,
    server: AbstractContextManager[str] | None = None,
    goodput_goal: float = 1.8,
) -> Findings:
    """Serve ``model`` by marquee and, one after the other, by each peer, and measure both in turns.

    ``server`` serves an archive made before; without it the embedded model's is made here.
    """
    found = Findings(remarks=[CODE, *([TUNED, RESTING] if effort.whole else [NOT_TUNED])])
    with server or our_server(model, folder / "marquee", compiled=True) as ours:
        saturation = served.mixed_saturation(ours, effort.requests) if effort.whole else 0.0
        loads = tuple(saturation * share for share in LOAD_SHARES)
        run = Comparison(ours, model, folder, effort, found, tell, loads, plain_too=server is None)
        run.against_tutorial()
        run.against_batching((None, 4.0, goodput_goal))
        for package, side in PACKAGES.items() if effort.whole else ():
            run.against_package(package, side)
        run.beside_invalid()
    if any(ratio.met is False and ratio.goal == 1.0 for ratio in found.ratios):
        found.remarks.append(BEHIND)
    return found


def draw_plots(found: Findings, folder: Path) -> list[Path]:
    """The three plots and points.json beside them; nothing where no points were measured."""
    if not found.points.joins:
        return []
    plots.write_points(found.points, folder / "points.json")
    return plots.draw(found.points, folder)


@contextmanager
def our_server(model: Path, folder: Path, compiled: bool) -> Iterator[str]:
    """marquee's own archive of ``model`` in ``folder``, for new TorchServe, in real TorchServe."""
    from pipeline.archive.build import BuildConfig, build
    from pipeline.progress import Silent

    mar, config = folder / "model.mar", folder / "model-config.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((model.parent / "model-config.yaml").read_text())
    settings["marquee"]["max_batch"] = sides.BATCH
    config.write_text(yaml.safe_dump(settings))
    build(BuildConfig(str(model), mar, config, container="marquee", compiled=compiled), Silent())
    with sides.torchserve(mar, threads=2) as url:
        yield url


def _tuning_rate(url: str, seed: int) -> float:
    answers = load.run_closed(url, traffic.equal(served.STEPS, seed), served.CLIENTS, TUNING_REQUESTS)
    return load.throughput(answers)
