"""What many tests share: the embedded model's archive, one real TorchServe that serves it, a client of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.archive.build import BuildConfig, build
from pipeline.client import Client
from pipeline.progress import Silent
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions
from pipeline.serving.torchserve import serve

ROOT = Path(__file__).parents[1]
SHARED_SERVERS = {"server", "continuous_server"}
SOAK_REASON = "long by nature: make soak runs it (docs/soak.md)"
# The groups that took more than 25 s on 2026-11-24, the longest first: so the last minutes keep both busy.
LONGEST = (
    "server",
    "tests/deploy/test_four_steps.py",
    "tests/engine/test_compiled_archive.py",
    "tests/vertex/test_torchserve_replicas.py",
    "continuous_server",
    "tests/cloud/test_cloud_command.py",
    "tests/serving/test_serving_commands.py",
    "tests/serving/test_failures.py",
    "tests/cli/test_hostile_commands.py",
    "tests/deploy/test_interrupted_deploys.py",
    "tests/test_readme.py",
    "tests/doctor/test_known_failures.py",
    "tests/archive/test_hidden_content.py",
    "tests/vertex/test_vertex_faults.py",
    "tests/deploy/test_deploy_commands.py",
    "tests/engine/test_engine_pictures.py",
    "tests/serving/test_plain_servers.py",
    "tests/deploy/test_waiting.py",
)
LAST_TURN = len(LONGEST) + 2
MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Counts that `make soak` raises, and the rule that `.ci/run` adds."""
    parser.addoption("--interleavings", type=int, default=50, help="random engine schedules to try")
    parser.addoption("--fuzzed", type=int, default=300, help="hostile requests to send")
    parser.addoption("--forbid-skips", action="store_true", help="a skipped test is a failed one")
    parser.addoption(
        "--may-skip",
        action="append",
        default=[],
        metavar="WORDS",
        help="with --forbid-skips: a skip whose reason contains these words stays a skip (repeatable)",
    )
    parser.addoption("--soak", action="store_true", help="also run what is long by nature (make soak)")


@pytest.hookimpl(tryfirst=True)  # xdist then reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what starts TorchServe, leaves out the soak tests, and prepares two processes side by side."""
    for item in items:
        if item.get_closest_marker("soak") and not config.getoption("soak"):
            item.add_marker(pytest.mark.skip(reason=SOAK_REASON))
        if _shared_servers(item):
            item.add_marker(pytest.mark.torchserve)
    if config.getoption("loadgroup", False):  # xdist sets this in the processes that run tests
        _group(items)


def _group(items: list[pytest.Item]) -> None:
    """Each group runs in one process, in order; the groups that take longest begin first.

    A group is one file, because its module fixtures are made once so; or all that asks for one shared server.
    """
    first: dict[str, int] = {}
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            name = min(_shared_servers(item), default=str(item.path.relative_to(ROOT)))
            item.add_marker(pytest.mark.xdist_group(name))
        first[_group_of(item)] = min(_turn(item), first.get(_group_of(item), LAST_TURN))
    items.sort(key=lambda item: first[_group_of(item)])


def _shared_servers(item: pytest.Item) -> set[str]:
    """Those that a test asks for, itself or by a parameter that names one."""
    callspec = getattr(item, "callspec", None)
    named = [one for one in callspec.params.values() if isinstance(one, str)] if callspec else []
    return SHARED_SERVERS & {*getattr(item, "fixturenames", ()), *named}


def _group_of(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.args[0])


def _turn(item: pytest.Item) -> int:
    """The smaller, the sooner its group begins."""
    if (group := _group_of(item)) in LONGEST:
        return LONGEST.index(group)
    if item.get_closest_marker("slow"):
        return LAST_TURN - 2
    return LAST_TURN - 1 if item.get_closest_marker("torchserve") else LAST_TURN


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With --forbid-skips a skip becomes a failure that gives the reason of the skip.

    A soak test that `make test` leaves out stays skipped, and so does what --may-skip names.
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("forbid_skips"):
        reason = str(call.excinfo.value) if call.excinfo else ""
        allowed = [SOAK_REASON, *item.config.getoption("may_skip")]
        if not any(words in reason for words in allowed):
            report.outcome = "failed"
            report.longrepr = f"skipped, and --forbid-skips was given: {reason}"
    return report


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """``made_once(name, make)``: the path that ``make(path)`` writes, once for all processes of this run."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def once(name: str, make: Callable[[Path], object]) -> Path:
        path = shared / "made-once" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path)
        return path

    return once


@pytest.fixture(scope="session")
def model_mar(made_once: MadeOnce) -> Path:
    """The embedded model's archive, built once."""
    model = str(ROOT / "model_artifacts" / "shapes")
    return made_once("plain/model.mar", lambda out: build(BuildConfig(model, out), Silent()))


@pytest.fixture(scope="session", autouse=True)
def no_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Replicas run with this environment's packages, whatever `marquee rehearse` has left on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARQUEE_REHEARSAL", str(tmp_path_factory.mktemp("no-twin")))
        yield


@pytest.fixture(scope="session")
def prebuilt_mar(made_once: MadeOnce) -> Path:
    """The same model for Google's prebuilt container, with the packages that `make env` has fetched."""
    model, container = str(ROOT / "model_artifacts" / "shapes"), "vertex-pytorch-gpu-2-4"
    return made_once(
        "prebuilt/model.mar", lambda out: build(BuildConfig(model, out, container=container), Silent())
    )


@pytest.fixture(scope="session")
def server(model_mar: Path) -> Iterator[RunningServer]:
    """Real TorchServe with that archive, as Vertex's prebuilt container runs it; one thread."""
    with serve(model_mar, ServeOptions(threads=1)) as running:
        yield running


@pytest.fixture(scope="session")
def continuous_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The embedded model with continuousBatching, as a container with TorchServe 0.12 may run it."""
    folder = tmp_path_factory.mktemp("continuous")
    config = (ROOT / "model_artifacts" / "model-config.yaml").read_text()
    config = re.sub(r"(?m)^(batchSize|continuousBatching|maxBatchDelay):.*\n", "", config)
    config = re.sub(r"(?m)^  max_batch:.*$", "  max_batch: 8", config)
    (folder / "c.yaml").write_text("batchSize: 48\nmaxBatchDelay: 1\ncontinuousBatching: true\n" + config)
    built = build(
        BuildConfig(str(ROOT / "model_artifacts" / "shapes"), folder / "model.mar", folder / "c.yaml"),
        Silent(),
    )
    with serve(built.path, ServeOptions(threads=1)) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    """A patient client of the shared server."""
    with Client(server.url) as client:
        yield client
