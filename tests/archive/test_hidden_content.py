"""Archives with right sums and bad content: another handler, damaged tensors, hidden pickles."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from archive_command import read_members, write_members

from handler.model import load as handler_model
from pipeline.archive.build import BuildConfig, build
from pipeline.archive.inspection import inspect_archive
from pipeline.archive.layout import PICKLE_SUFFIXES
from pipeline.archive.manifest import manifest_bytes
from pipeline.archive.pickles import content_problem
from pipeline.progress import Silent

UNET = "model/unet/diffusion_pytorch_model.safetensors"


class Calls:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("loaded",)


@pytest.fixture(scope="module")
def archive(saved_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hidden") / "model.mar"
    return build(BuildConfig(str(saved_pipeline), out), Silent()).path


def problems(archive: Path, tmp_path: Path, **members: bytes) -> str:
    """What inspect says of the archive with members changed and all sums right."""
    content = read_members(archive) | {name.replace("__", "/"): data for name, data in members.items()}
    path = write_members(tmp_path / "model.mar", content, fix_sums=True)
    return "\n".join(inspect_archive(path, Silent()).problems)


def with_member(archive: Path, tmp_path: Path, name: str, data: bytes) -> str:
    return problems(archive, tmp_path, **{name: data})


@pytest.mark.parametrize(
    "handler",
    ["../../../etc/evil.py", "/tmp/evil.py", "other.py", "os:system", "image_classifier", "", None, 7, ["a"]],
)
def test_a_manifest_may_name_no_other_handler(archive: Path, tmp_path: Path, handler: Any) -> None:
    manifest = json.loads(manifest_bytes())
    manifest["model"]["handler"] = handler
    found = with_member(archive, tmp_path, "MAR-INF/MANIFEST.json", json.dumps(manifest).encode())
    assert "as handler; marquee_handler.py is served" in found
    assert repr(str(handler)) in found


@pytest.mark.parametrize("key", ["requirementsFile", "serializedFile", "modelFile", "envelope", "extensions"])
def test_a_manifest_may_name_nothing_else_that_runs(archive: Path, tmp_path: Path, key: str) -> None:
    manifest = json.loads(manifest_bytes())
    manifest["model"][key] = "handler/job.py"
    found = with_member(archive, tmp_path, "MAR-INF/MANIFEST.json", json.dumps(manifest).encode())
    assert f"has the key {key!r}" in found


@pytest.mark.parametrize("text", ["[]", "{}", '{"model": []}', '{"model": {}}', "null", "[" * 5000, '"x"'])
def test_a_manifest_that_says_nothing_is_refused(archive: Path, tmp_path: Path, text: str) -> None:
    assert "MAR-INF/MANIFEST.json" in with_member(archive, tmp_path, "MAR-INF/MANIFEST.json", text.encode())


def tensors(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(start: int, end: int, shape: Any = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tensors({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)), "'b' do not follow"),
        (tensors({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)), "do not follow"),
        (tensors({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "'b' do not follow"),
        (tensors({"a": entry(0, 4)}, bytes(5)), "bytes, and its header says"),
        (tensors({"a": entry(0, 40)}, bytes(4)), "bytes, and its header says"),
        (tensors({"a": entry(0, 1 << 61)}, bytes(4)), "bytes, and its header says"),
        (tensors({"a": entry(0, 1 << 80)}, bytes(4)), "not whole numbers from 0"),
        (tensors({"a": entry(-4, 0, [4])}, bytes(4)), "not whole numbers from 0"),
        (tensors({"a": entry(4, 0, [-4])}, bytes(4)), "not whole numbers from 0"),
        (tensors({"a": entry(0, 4, [True, 4])}, bytes(4)), "not whole numbers from 0"),
        (tensors({"a": entry(0, 4, [1] * 1000)}, bytes(4)), "not whole numbers from 0"),
        (tensors({"a": entry(0, 4, [2])}, bytes(4)), "a shape that its bytes do not fit"),
        (tensors({"a": entry(0, 4, dtype="PICKLE")}, bytes(4)), "the unknown dtype 'PICKLE'"),
        (tensors({"a": {"dtype": ["U8"], "shape": [4], "data_offsets": [0, 4]}}, bytes(4)), "damaged"),
        (
            tensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}', b"x"),
            "is in it twice",
        ),
        (tensors(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"), "NaN"),
        (tensors({"a": entry(0, 4), "__metadata__": {"x": 1}}, bytes(4)), "__metadata__"),
        (tensors(b"[" * 4000), "damaged"),
        (tensors(b" {}"), "does not begin with {"),
        (tensors('{"a": 1}'.encode("utf-16")), "damaged"),
        ((9 << 20).to_bytes(8, "little") + b"{" + b" " * (9 << 20), "at most 8388608"),
        (b"", "no safetensors header"),
        (b"\x00" * 20, "no safetensors header"),
        (b"\xff" * 20, "no safetensors header"),
    ],
)
def test_unsound_tensors_are_refused_by_their_name(
    archive: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    found = with_member(archive, tmp_path, UNET, content)
    assert f"{UNET} is not a valid safetensors file: " in found
    assert reason in found
    assert "pickle" not in found


def test_a_flipped_byte_in_a_header_never_makes_a_pickle_of_it(archive: Path, tmp_path: Path) -> None:
    """Every bit of the length and of the header's beginning, under the old sums, as a bad disk leaves it."""
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as file:
        begin = file.getinfo(UNET).header_offset + 30 + len(UNET)
    path = tmp_path / "model.mar"
    for at in range(begin, begin + 12):
        for bit in range(8):
            raw = bytearray(whole)
            raw[at] ^= 1 << bit
            path.write_bytes(raw)
            found = "\n".join(inspect_archive(path, Silent()).problems)
            assert f"{UNET} has changed" in found
            assert "pickle" not in found


def test_no_mutation_of_a_header_passes_unless_it_says_the_same(archive: Path, tmp_path: Path) -> None:
    """Any number replaced, any character spoiled: refused, or still tensors that fill the file exactly."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    chance = random.Random(9)
    header = json.dumps({"a": entry(0, 4), "b": entry(4, 12, [2], "F32")}).encode()
    values = [b"-1", b"0", b"3", b"1e3", b"18446744073709551616", b"9" * 5000, b'"4"', b"null", b"[]", b"4.0"]
    passed = 0
    for _ in range(300):
        numbers = list(re.finditer(rb"\d+", header))
        number = chance.choice(numbers)
        at = chance.randrange(len(header))
        spoiled = (
            header[: number.start()] + chance.choice(values) + header[number.end() :]
            if chance.random() < 0.7
            else header[:at] + bytes([chance.randrange(256)]) + header[at + 1 :]
        )
        content = tensors(spoiled, bytes(12))
        if not with_member(archive, tmp_path, UNET, content):
            passed += 1
            try:
                loaded = load(content)
            except SafetensorError as error:  # what the handler would say
                pytest.fail(f"{spoiled!r}: {error}")
            assert sum(tensor.nbytes for tensor in loaded.values()) == 12
    assert passed < 150


LEADS = (
    b"\n\n",
    b" ",
    b"\t\r\n",
    b"# a comment\n",
    b"{}\n",
    b"words before it ",
    b"\xef\xbb\xbf",
    b"a: 1\n---\n",
)


@pytest.mark.parametrize("name", ["model/notes.txt", "handler/notes.py", "packages/x/METADATA", "notes.yaml"])
@pytest.mark.parametrize("lead", LEADS)
def test_a_pickle_behind_other_bytes_is_found(archive: Path, tmp_path: Path, name: str, lead: bytes) -> None:
    for protocol in range(6):
        for trail in (b"", b"\n", b"\nmore words"):
            data = lead + pickle.dumps(Calls(), protocol) + trail
            found = with_member(archive, tmp_path, name, data)
            assert f"{name} is a pickle by its content" in found, (protocol, trail)


def test_text_that_only_looks_like_opcodes_passes(archive: Path, tmp_path: Path) -> None:
    texts = [
        b"list of conditions\ndisclaimer\n2. more, etc.",
        b"public\napi\n.. note:: c.\n",
        b"classical\nword\nand (so\nindeed\nword\n.)",
        b"Numbers: 1.\n0.\n",
        b"",
    ]
    for text in texts:
        assert with_member(archive, tmp_path, "model/notes.txt", text) == ""


def test_a_search_without_end_is_itself_refused(archive: Path, tmp_path: Path) -> None:
    found = with_member(archive, tmp_path, "model/notes.txt", b"ca\nb\n" * 400_000)
    assert "model/notes.txt is a pickle by its content" in found


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("model/unet/config.json", b"{", "is not JSON"),
        ("model/unet/config.json", b"\xff\xfe{\x00}\x00", "is not readable text"),
        ("model/tokenizer/merges.txt", b"a b\n\x00", "byte 4 is a control character"),
        ("model/tokenizer/merges.txt", b"words PK\x03\x04", "is a control character"),
        ("handler/contract/job.py", b"x = 1\n\x1b[2J", "is a control character"),
    ],
)
def test_text_files_are_text(archive: Path, tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (found,) = with_member(archive, tmp_path, name, data).splitlines()
    assert found.startswith(name)
    assert reason in found


@pytest.mark.parametrize(
    "text",
    ["minWorkers: 1000", "maxWorkers: 65", "jobQueueSize: 99999999999", "minWorkers: 4\nmaxWorkers: 2"],
)
def test_counts_that_no_server_can_take_are_refused(archive: Path, tmp_path: Path, text: str) -> None:
    found = with_member(archive, tmp_path, "model-config.yaml", text.encode())
    assert f"model-config.yaml: {text.split(':')[0]} is " in found


def test_both_programs_know_the_same_pickle_suffixes() -> None:
    assert set(handler_model.PICKLE_SUFFIXES) == set(PICKLE_SUFFIXES)


def test_a_good_archive_stays_good(archive: Path, tmp_path: Path) -> None:
    assert problems(archive, tmp_path) == ""
    sums = read_members(archive)["MAR-INF/SHA256SUMS"].decode()
    assert f"{hashlib.sha256(manifest_bytes()).hexdigest()}  MAR-INF/MANIFEST.json" in sums


def test_a_manual_page_is_no_pickle() -> None:
    """From tqdm's own; its lines read as the opcodes MARK, INST and STOP, but name no module."""
    page = b".TP\n(initialisation,\niterating, and updating).\n.TP\n\\-\\-nrows=\\f[I]nrows\\f[]\n"
    assert content_problem("packages/tqdm/tqdm.1", len(page), page) == ""
    assert "a pickle" in content_problem("packages/x/y.1", 30, b"text\n(S'true'\nios\nsystem\n.\n")
