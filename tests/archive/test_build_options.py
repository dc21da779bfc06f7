"""Hostile values for the options of build, inspect and convert: one sentence and a cure, no traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer.testing
from archive_command import ROOT, edit_json, marquee

from pipeline.archive.build import BuildConfig, build
from pipeline.cli import app
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

RUNNER = typer.testing.CliRunner()
BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def said(*arguments: str | Path) -> str:
    """What a command refuses with, in this process; anything but a MarqueeError or a usage error fails."""
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code != 0, result.output
    if isinstance(result.exception, MarqueeError):
        return f"{result.exception}\n{result.exception.cure}"
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    return result.output


@pytest.fixture
def special(tmp_path: Path) -> dict[str, Path]:
    """One path of each kind that is not a regular file, and links to them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "pipe link").symlink_to(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        "a device": Path("/dev/zero"),
        "a pipe": tmp_path / "pipe",
        "a folder": tmp_path / "folder",
        "that is a device": tmp_path / "link",
        "is a pipe": tmp_path / "pipe link",
        "Too many levels of symbolic links": tmp_path / "loop",
        "File name too long": tmp_path / ("x" * 300),
        "Not a directory": ROOT / "README.md" / "x",
    }


def test_out_is_never_anything_but_a_file(special: dict[str, Path]) -> None:
    for kind, path in special.items():
        before = sorted(os.listdir(path)) if os.path.isdir(path) else []
        output = said("build", "--out", path)
        assert kind.removeprefix("that ").removeprefix("is ") in output, path
        assert str(path) in output
        assert (sorted(os.listdir(path)) if os.path.isdir(path) else []) == before
    assert Path("/dev/zero").is_char_device()
    assert special["a pipe"].is_fifo()
    assert special["that is a device"].is_symlink()


def test_out_never_replaces_what_it_is_made_from(model_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("batchSize: 4\n")
    weights = model_folder / "unet/diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    for out in (config, weights, model_folder / "model_index.json"):
        assert "is made from that file" in said(
            "build", "--model", model_folder, "--config", config, "--out", out
        )
    assert config.read_text() == "batchSize: 4\n"
    assert weights.read_bytes() == before


def test_config_is_never_anything_but_a_file(special: dict[str, Path], tmp_path: Path) -> None:
    for kind, path in special.items():
        output = said("build", "--config", path, "--out", tmp_path / "model.mar")
        assert kind.removeprefix("that ").removeprefix("is ") in output, path
        assert not (tmp_path / "model.mar").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "it uses aliases"),
        ("a: &a {b: *a}", "it uses aliases"),
        ("<<: &a {minWorkers: 1}\nb: *a", "it uses aliases"),
        ("x: " + "[" * 2000, "too many brackets"),
        ("\n".join(" " * depth + "a:" for depth in range(200)), "more than 32 levels"),
        ("a: [", "not YAML of plain values"),
        ("\ud800", "is not UTF-8"),
        ("minWorkers: 1000", "minWorkers is 1,000; at most 64"),
        ("minWorkers: " + "9" * 300, "minWorkers is about 2^"),
        ("minWorkers: " + "9" * 5000, "not YAML of plain values"),
        ("minWorkers: 3\nmaxWorkers: 2", "more than maxWorkers, 2"),
        ("responseTimeout: 9999999999", "responseTimeout is 9,999,999,999; at most 86,400"),
        ("minWorkers: null", "minWorkers"),
        ("minWorkers: .nan", "a value that JSON does not have"),
        ("minWorkers: -1", "minWorkers"),
        ("marquee: {defaults: {guidance_scale: .nan}}", "a value that JSON does not have"),
        ("marquee: {defaults: {guidance_scale: .inf}}", "a value that JSON does not have"),
        ("marquee: {defaults: null}", "defaults"),
        ("marquee: [1]", "marquee"),
        ("marquee: 2026-11-24", "a value that JSON does not have"),
        ("2026-11-24: 1", "a value that JSON does not have"),
        ("- a", "it holds list, not keys"),
        ("just words", "it holds str, not keys"),
        ("!!python/object/apply:os.system [x]", "not YAML of plain values"),
        ("? [a]\n: 1", "not YAML of plain values"),
        ("x: " + "a" * (30 << 20), "at most 1,048,576"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_a_hostile_configuration_is_refused_with_a_sentence(tmp_path: Path, text: str, reason: str) -> None:
    config = tmp_path / "mine.yaml"
    config.write_bytes(text.encode("utf-8", "surrogatepass"))
    output = said("build", "--config", config, "--out", tmp_path / "model.mar")
    assert str(config) in output
    assert reason in output
    assert len(output) < 1000
    assert not (tmp_path / "model.mar").exists()


def test_the_folders_own_configuration_is_held_to_the_same(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "model-config.yaml").write_text(BOMB)
    assert "it uses aliases" in said("build", "--model", model_folder, "--out", tmp_path / "model.mar")
    (model_folder / "model-config.yaml").write_text("minWorkers: 1000")
    assert "at most 64" in said("build", "--model", model_folder, "--out", tmp_path / "model.mar")


@pytest.mark.parametrize(
    "model",
    ["../..", "..", "/", "", ".", "/dev/zero", "/dev/null", "/etc/passwd", "README.md", "a/..", "a/b/c", "-",
     "x" * 5000, "owner/" + "n" * 200, "\x1b[2J", "~", "https://example.com/x", "model.safetensors"],
)  # fmt: skip
def test_a_hostile_model_is_refused_with_a_sentence(tmp_path: Path, model: str) -> None:
    output = said("build", "--model", model, "--out", tmp_path / "out" / "model.mar")
    assert output.strip()
    assert not (tmp_path / "out" / "model.mar").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--dtype", "fp8"),
        ("--container", "no such"),
        ("--container", ""),
        ("--compile-with", "/etc/passwd", "--container", "vertex-pytorch-gpu-2-4"),
        ("--base", "/dev/zero"),
        ("--base", "/etc/passwd", "--model", "x.safetensors"),
    ],
)
def test_other_hostile_options_are_refused_with_a_sentence(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert said("build", *options, "--out", tmp_path / "model.mar").strip()
    assert not (tmp_path / "model.mar").exists()


JSON_FILES = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json")


@pytest.mark.parametrize("name", [*JSON_FILES, "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"3", b'"x"', b"\xff", b"[" * 100_000, b'{"a": NaN}', b"{" * 9]
)
def test_a_hostile_file_of_the_model_is_refused_with_a_sentence(
    model_folder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (model_folder / name).write_bytes(content)
    if content == b'{"a": NaN}' and name not in ("model_index.json", "tokenizer/tokenizer.json"):
        return  # diffusers reads a configuration without the keys it knows as its defaults
    output = said("build", "--model", model_folder, "--out", tmp_path / "model.mar")
    assert name in output
    assert not (tmp_path / "model.mar").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"unet": None}, {"unet": "x"}, {"unet": [[], {}]}, {"vae": {}}, {"_class_name": None},
        {"_class_name": ["StableDiffusionPipeline"]}, {"tokenizer": [None, None]},
    ],
)  # fmt: skip
def test_a_hostile_index_is_refused_with_a_sentence(
    model_folder: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    edit_json(model_folder / "model_index.json", **change)
    assert "model_index.json names" in said("build", "--model", model_folder, "--out", tmp_path / "model.mar")


@pytest.mark.parametrize("shards", ["[]", "3", "{}", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}'])
def test_a_hostile_list_of_shards_is_refused_with_a_sentence(
    model_folder: Path, tmp_path: Path, shards: str
) -> None:
    weights = model_folder / "unet/diffusion_pytorch_model.safetensors"
    weights.unlink()
    (model_folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(shards)
    assert "unet/" in said("build", "--model", model_folder, "--out", tmp_path / "model.mar")


def test_a_vae_without_blocks_is_named(model_folder: Path, tmp_path: Path) -> None:
    for blocks in (None, [], 3, "x", [1] * 100):
        edit_json(model_folder / "vae/config.json", block_out_channels=blocks)
        with pytest.raises(MarqueeError, match="block_out_channels"):
            build(BuildConfig(str(model_folder), tmp_path / "model.mar"), Silent())


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_hostile_arguments_of_the_other_commands(special: dict[str, Path], command: str) -> None:
    for path in (*special.values(), Path("x" * 5000), Path("/etc/passwd"), Path("gone")):
        if command == "convert" and path == special["a folder"]:
            continue
        assert said(command, path).strip()


def test_the_real_command_prints_two_lines(tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMB)
    done = marquee("build", "--config", tmp_path / "bomb.yaml", "--out", tmp_path / "model.mar")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert json.dumps(done.stdout) == '""'
