"""Packages inside an archive: locked, trimmed by rule, and put first before anything else is imported."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline.archive.layout import CONTAINER_FILE, bytes_member
from pipeline.archive.model_config import with_continuous_batching
from pipeline.archive.target.bytecode import bytecode_members
from pipeline.archive.target.packages import package_members, ships, wheel_members
from pipeline.archive.target.targets import Target, Trim, container_record, find_target, lock_text, trim_rules
from pipeline.archive.target.wheels import LockedPackage, fetch_wheels, parse_lock
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

ROOT = Path(__file__).resolve().parents[2]
PREBUILT = [f"vertex-pytorch-{kind}-2-{minor}" for kind in ("gpu", "cpu") for minor in (4, 3, 2)]


def make_wheel(folder: Path, name: str, files: dict[str, str]) -> LockedPackage:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return LockedPackage(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("name", PREBUILT)
def test_every_prebuilt_target_has_a_lock_that_pins_one_wheel_per_package(name: str) -> None:
    packages = parse_lock(lock_text(find_target(name)))
    names = [package.name for package in packages]
    assert len(set(names)) == len(names)
    assert {"diffusers", "transformers", "tokenizers", "safetensors", "huggingface-hub", "accelerate"} <= set(
        names
    )
    assert not {"torch", "numpy", "pillow", "typing-extensions"} & set(names)


def test_a_lock_line_without_a_hash_is_refused() -> None:
    with pytest.raises(ValueError, match=r"diffusers==0\.36\.0"):
        parse_lock("# comment\ndiffusers==0.36.0\n")


def test_only_a_known_torchserve_gets_continuous_batching() -> None:
    assert not any(find_target(name).takes_continuous_batching for name in PREBUILT)
    assert find_target("marquee").takes_continuous_batching
    with pytest.raises(MarqueeError, match="vertex-pytorch-gpu-2-4"):
        find_target("vertex-pytorch-gpu-9-9")


def test_the_switch_is_taken_out_and_everything_else_stays() -> None:
    plain, switched = b"batchSize: 4  # mine\n", b"continuousBatching: true  # mine\nbatchSize: 40\n"
    assert with_continuous_batching(plain, False) == plain
    assert with_continuous_batching(switched, True) == switched
    assert with_continuous_batching(switched, False) == b"batchSize: 8\nmaxBatchDelay: 20\n"
    turned_on = yaml.safe_load(with_continuous_batching(b"marquee: {max_batch: 4}\n", True))
    assert turned_on["continuousBatching"] is True
    assert (turned_on["batchSize"], turned_on["maxBatchDelay"]) == (24, 1)
    for own, requests in (("{max_batch: auto}", 192), ("{strict: true}", 48), ("{}", 192)):
        roomy = yaml.safe_load(with_continuous_batching(f"marquee: {own}\n".encode(), True))
        assert roomy["batchSize"] == requests, own


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformers/models/bert/modeling_bert.py", False),
        ("transformers/models/clip/modeling_clip.py", True),
        ("transformers/models/__init__.py", True),
        ("transformers/modeling_utils.py", True),
        ("diffusers/schedulers/scheduling_unipc_multistep.py", True),
        ("diffusers/pipelines/flux/pipeline_flux.py", False),
        ("diffusers/pipelines/pipeline_utils.py", True),
        ("diffusers/pipelines/stable_diffusion/safety_checker.py", True),
        ("transformers/models/clip/image_processing_clip.py", True),
        ("diffusers-0.36.0.dist-info/METADATA", True),
        ("diffusers-0.36.0.dist-info/licenses/LICENSE", True),
        ("diffusers-0.36.0.dist-info/RECORD", False),
        ("tokenizers/tokenizers.abi3.so", True),
    ],
)
def test_trimming_goes_by_family(name: str, expected: bool) -> None:
    assert ships(name, trim_rules()) is expected


def test_trim_keeps_win_over_drops() -> None:
    rules = Trim(drop=("a/*",), keep=("a/b/*",))
    assert [ships(name, rules) for name in ("a/x.py", "a/b/x.py", "c.py")] == [False, True, True]


def test_a_cached_wheel_is_taken_only_with_the_locked_digest(tmp_path: Path) -> None:
    target = find_target("vertex-pytorch-gpu-2-4")
    for package in parse_lock(lock_text(target)):
        (tmp_path / f"{package.name}-{package.version}-py3-none-any.whl").write_bytes(b"something else")
    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "empty")}
    (tmp_path / "empty").mkdir()
    code = (
        "import sys; from pathlib import Path;"
        "from pipeline.archive.target.targets import find_target, lock_text;"
        "from pipeline.archive.target.wheels import fetch_wheels; from pipeline.progress import Silent;"
        "target = find_target('vertex-pytorch-gpu-2-4');"
        "fetch_wheels(target, lock_text(target), Path(sys.argv[1]), Silent())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "could not be downloaded" in done.stderr


def test_a_target_that_has_the_packages_brings_none(tmp_path: Path) -> None:
    assert package_members(find_target("marquee"), tmp_path / "never-made", Silent()) == []
    assert not (tmp_path / "never-made").exists()


def handler_process(root: Path, code: str) -> str:
    """Run code with an unpacked archive's root on the path, as TorchServe does, and nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PATH": os.defpath, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """An archive's root: the handler's module, and a package that exists elsewhere in another version too."""
    root = tmp_path / "unpacked"
    (root / "handler" / "model").mkdir(parents=True)
    for name in ("__init__.py", "model/__init__.py", "model/vendored.py"):
        (root / "handler" / name).write_bytes((ROOT / "handler" / name).read_bytes())
    (root / "packages" / "wrapped").mkdir(parents=True)
    (root / "packages" / "wrapped" / "__init__.py").write_text("ORIGIN = 'archive'\n")
    (root / "packages" / "wrapped-2.0.dist-info").mkdir()
    (root / "packages" / "wrapped-2.0.dist-info" / "METADATA").write_text("Name: wrapped\nVersion: 2.0\n")
    (root / "wrapped.py").write_text("ORIGIN = 'container'\n")
    return root


def test_the_archives_packages_win_even_over_imported_ones(unpacked: Path) -> None:
    code = (
        "import pathlib, wrapped; assert wrapped.ORIGIN == 'container';"
        "from handler.model.vendored import use_vendored;"
        "use_vendored(pathlib.Path.cwd()); use_vendored(pathlib.Path.cwd());"
        "import wrapped, sys, importlib.metadata as m;"
        "print(wrapped.ORIGIN, m.version('wrapped'), sys.path.count(str(pathlib.Path.cwd() / 'packages')))"
    )
    assert handler_process(unpacked, code) == "archive 2.0 1"


@pytest.mark.parametrize(("python", "source"), [("running", "archive"), ("cp27", "environment")])
def test_packages_for_another_python_are_left_out_with_one_line(
    unpacked: Path, python: str, source: str
) -> None:
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}" if python == "running" else python
    record = container_record(Target("its-container", None, f"{tag[2]}.{tag[3:]}", "2.4", None, None))
    (unpacked / "MAR-INF").mkdir()
    (unpacked / CONTAINER_FILE).write_bytes(record)
    code = (
        "import logging, pathlib, sys; logging.basicConfig(stream=sys.stdout, format='%(message)s');"
        "from handler.model.vendored import packages_in_use, use_vendored; root = pathlib.Path.cwd();"
        "use_vendored(root); import wrapped; used = packages_in_use(root);"
        "print(wrapped.ORIGIN, used['source'], used['built_for'])"
    )
    *lines, last = handler_process(unpacked, code).splitlines()
    origin = {"archive": "archive", "environment": "container"}[source]
    assert last == f"{origin} {source} {tag} linux_x86_64"
    assert [line.partition(" and this is ")[0] for line in lines] == (
        [] if source == "archive" else ["the archive's packages are for cp27 linux_x86_64"]
    )


def test_without_packages_nothing_changes(unpacked: Path) -> None:
    code = (
        "import pathlib, sys, wrapped; before = list(sys.path);"
        "from handler.model.vendored import use_vendored;"
        "use_vendored(pathlib.Path('nowhere')); print(sys.path == before, 'wrapped' in sys.modules)"
    )
    assert handler_process(unpacked, code) == "True True"


@pytest.mark.parametrize(("version", "outcome"), [("9.0.1", "9.0.1; it must be 9.1"), ("9.1.0", "fine")])
def test_an_old_pillow_is_named(unpacked: Path, version: str, outcome: str) -> None:
    (unpacked / "PIL.py").write_text(f"__version__ = '{version}'\n")
    code = (
        "from handler.model.vendored import ContainerError, check_pillow\n"
        "try:\n    check_pillow()\n    print('fine')\nexcept ContainerError as error:\n    print(error)"
    )
    assert outcome in handler_process(unpacked, code)


def test_members_come_from_the_locked_wheels_trimmed(tmp_path: Path) -> None:
    info = "small-1.0.dist-info"
    files = {"small/__init__.py": "x = 1\n", f"{info}/METADATA": "m", f"{info}/RECORD": "r"}
    package = make_wheel(tmp_path, "small", files)
    lock = f"{package.name}==1.0 --hash=sha256:{package.sha256}\n"
    target = Target("test", None, "3.9", "2.4", None, "small.lock.txt")
    wheels = fetch_wheels(target, lock, tmp_path, Silent())
    assert wheels == [tmp_path / "small-1.0-py3-none-any.whl"]
    assert [(member.path, b"".join(member.chunks())) for member in wheel_members(wheels)] == [
        ("packages/small/__init__.py", b"x = 1\n"),
        (f"packages/{info}/METADATA", b"m"),
    ]


def test_two_packages_may_not_bring_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_wheel(tmp_path, name, {"shared/__init__.py": name})
    with pytest.raises(MarqueeError, match=r"two-1\.0-py3-none-any\.whl brings shared/__init__\.py"):
        wheel_members(sorted(tmp_path.glob("*.whl")))


def test_bytecode_is_the_same_anywhere_and_is_used_whatever_the_dates(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = Target("test", None, version, "2.4", None, None)
    sources = [bytes_member("packages/small/__init__.py", b"x = 1\n")]
    first, second = (bytecode_members(sources, target, Path(sys.executable)) for _ in range(2))
    (member,) = first
    assert member.path == f"packages/small/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    content = b"".join(member.chunks())
    assert content == b"".join(second[0].chunks())
    (tmp_path / member.path).parent.mkdir(parents=True)
    (tmp_path / member.path).write_bytes(content)
    (tmp_path / "packages/small/__init__.py").write_text("x = 2\n")  # newer, and not looked at
    assert handler_process(tmp_path / "packages", "import small; print(small.x)") == "1"


def test_bytecode_of_another_python_is_refused() -> None:
    target = Target("test", None, "2.7", "2.4", None, None)
    with pytest.raises(MarqueeError, match=r"test has 2\.7"):
        bytecode_members([], target, Path(sys.executable))
    with pytest.raises(MarqueeError, match="cannot be run as Python"):
        bytecode_members([], target, Path("/nowhere/python"))
