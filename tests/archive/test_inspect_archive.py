"""`marquee inspect` on archives that are damaged or hostile."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from archive_command import marquee

from pipeline.archive.build import BuildConfig, build
from pipeline.archive.digests import sums_text
from pipeline.archive.inspection import NEEDED, inspect_archive
from pipeline.archive.layout import SUMS, bytes_member
from pipeline.archive.writer import write_archive
from pipeline.archive.zip_records import stored_entry
from pipeline.errors import MarqueeError
from pipeline.progress import Silent

UNET = "model/unet/diffusion_pytorch_model.safetensors"
Content = dict[str, bytes]


@pytest.fixture(scope="session")
def archive(saved_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inspected") / "model.mar"
    return build(BuildConfig(str(saved_pipeline), out), Silent()).path


def read(archive: Path) -> Content:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path: Path, content: Content, *, fix_sums: bool = False) -> Path:
    import hashlib

    if fix_sums:
        sums = {
            name: hashlib.sha256(data).hexdigest() for name, data in content.items() if "SUMS" not in name
        }
        content = content | {"MAR-INF/SHA256SUMS": sums_text(sums)}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(stored_entry(name, len(data)), data)
    return path


def problems(path: Path) -> str:
    return "\n".join(inspect_archive(path, Silent()).problems)


def test_a_good_archive_has_no_problems(archive: Path) -> None:
    found = inspect_archive(archive, Silent())
    assert found.problems == ()
    assert len(found.files) == len(read(archive))
    assert found.settings["marquee"]["limits"]["max_instances"] == 16


@pytest.mark.parametrize("name", [UNET, "handler/__init__.py", "model-config.yaml", "MAR-INF/MANIFEST.json"])
def test_a_flipped_byte_is_named(archive: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo(name)
        at = info.header_offset + 30 + len(name) + info.file_size // 2
    raw = bytearray(archive.read_bytes())
    raw[at] ^= 1
    (tmp_path / "model.mar").write_bytes(raw)
    done = marquee("inspect", tmp_path / "model.mar")
    assert done.returncode == 1
    assert f"error: {name} has changed" in done.stderr
    assert "refused" in done.stdout


def flips(whole: bytes, places: Iterable[int], mask: int, path: Path) -> Iterator[tuple[int, str]]:
    """What inspect says of an archive in which one byte is another; a refusal to open it says something."""
    for at in places:
        raw = bytearray(whole)
        raw[at] ^= mask
        path.write_bytes(raw)
        try:
            yield at, problems(path)
        except MarqueeError as error:
            yield at, str(error)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_outside_the_files_is_named(archive: Path, tmp_path: Path, mask: int) -> None:
    """Headers and the directory carry no CRC of their own; TorchServe trusts them all the same."""
    content = read(archive)
    members = [bytes_member(name, content[name]) for name in NEEDED if name != SUMS]
    path = tmp_path / "model.mar"
    write_archive(path, members, Silent())
    assert problems(path) == ""
    with zipfile.ZipFile(path) as file:
        entries, start = file.infolist(), file.start_dir
    whole = path.read_bytes()
    headers = {entry.header_offset: entry.header_offset + 30 + len(entry.filename) for entry in entries}
    places = [at for begin, end in headers.items() for at in range(begin, end)]
    places += range(start, len(whole))
    said = dict(flips(whole, places, mask, path))
    assert [at for at, problem in said.items() if not problem] == []
    first = entries[0]
    for at, field in ((4, "version"), (10, "time"), (14, "CRC"), (18, "stored size")):
        assert f"{first.filename} has a header" in said[first.header_offset + at]
        assert f"its {field} is another" in said[first.header_offset + at]
    assert f"{first.filename} has a directory entry" in said[start + 38]
    assert "the directory does not end as marquee writes it" in said[len(whole) - 18]


def test_missing_extra_and_duplicate_files_are_named(archive: Path, tmp_path: Path) -> None:
    content = read(archive)
    del content["handler/__init__.py"]
    content["handler/extra.py"] = b"print('hello')"
    found = problems(write(tmp_path / "model.mar", content))
    assert "handler/__init__.py is listed in MAR-INF/SHA256SUMS but missing" in found
    assert "handler/extra.py is not listed in MAR-INF/SHA256SUMS" in found
    with zipfile.ZipFile(tmp_path / "model.mar", "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("handler/extra.py", b"print('bye')")
    assert "handler/extra.py is in it 2 times" in problems(tmp_path / "model.mar")


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "model/../../evil.py", "/etc/evil", "C:/evil", "a\\..\\evil", "model//x", "./x", "a/."],
)
def test_a_path_that_escapes_is_named(archive: Path, tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = entry.orig_filename = name
    path = write(tmp_path / "model.mar", read(archive))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(entry, b"x")
    assert name in problems(path)


def test_a_symlink_is_named(archive: Path, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("model/link")
    entry.external_attr = 0o120777 << 16
    path = write(tmp_path / "model.mar", read(archive))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(entry, b"/etc/passwd")
    assert "model/link is not a plain file (mode 120777)" in problems(path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model/unet/diffusion_pytorch_model.bin", b"anything"),
        ("model/vae/weights.CKPT", b"anything"),
        ("model/unet/notes.txt", b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94."),
        ("model/unet/notes.json", b"PK\x03\x04 a torch.save file"),
        (UNET, b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01u."),
        ("model/unet/notes.txt", pickle.dumps({"a": print}, protocol=0)),
        ("packages/x/notes.yaml", pickle.dumps({"a": print}, protocol=1) + b"\n"),
        ("packages/x/weights.joblib", b"anything"),
        ("handler/array.npy", b"anything"),
        ("compiled/other.pt2", b"anything"),
    ],
)
def test_pickle_is_found_by_name_and_by_content(
    archive: Path, tmp_path: Path, name: str, data: bytes
) -> None:
    path = write(tmp_path / "model.mar", read(archive) | {name: data}, fix_sums=True)
    found = problems(path)
    assert f"{name} is a pickle" in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("handler/notes.json", gzip.compress(b"x", mtime=0), "is gzip by its content"),
        ("packages/x/METADATA", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}", "is a NumPy array by its content"),
        ("model/unet/weights.dat", b"x", "has a suffix that no file of a model has (.dat"),
        ("model/unet/weights", b"x", "has a suffix that no file of a model has (no suffix"),
        ("model/x.so", b"\x7fELF", "has a suffix that no file of a model has (.so"),
        ("model/unet/x.json", b"\x7fELF", "is machine code by its content"),
        ("handler/x.so", b"x", "is a shared library by its name"),
        ("compiled/other.so", b"x", "is a shared library by its name"),
        ("libx.SO.1.2", b"x", "is a shared library by its name"),
        ("handler/x.dat", b"\x7fELF", "is machine code by its content"),
        ("compiled/key.json", b"\x7fELF", "is machine code by its content"),
    ],
)
def test_what_may_hide_code_is_named(
    archive: Path, tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    path = write(tmp_path / "model.mar", read(archive) | {name: data}, fix_sums=True)
    assert f"{name} {reason}" in problems(path)


@pytest.mark.parametrize("name", ["compiled/unet.so", "packages/x/libx.so.1", "packages/bin/x"])
def test_machine_code_has_its_places(archive: Path, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "model.mar", read(archive) | {name: b"\x7fELF"}, fix_sums=True)
    assert problems(path) == ""


def test_json_shows_settings_with_dates_as_keys(archive: Path, tmp_path: Path) -> None:
    settings = {"model-config.yaml": b"{2026-11-21: {2026-11-22: 1}, x: [{2026-11-23: 2026-11-24}]}"}
    done = marquee(
        "inspect", write(tmp_path / "model.mar", read(archive) | settings, fix_sums=True), "--json"
    )
    assert json.loads(done.stdout)["settings"] == {
        "2026-11-21": {"2026-11-22": 1},
        "x": [{"2026-11-23": "2026-11-24"}],
    }


def test_a_safetensors_header_that_looks_like_a_pickle_passes(archive: Path, tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x0280)
    data = len(header).to_bytes(8, "little") + header + b"x"
    assert data.startswith(b"\x80\x02")
    assert problems(write(tmp_path / "model.mar", read(archive) | {UNET: data}, fix_sums=True)) == ""


def test_a_compressed_bomb_is_refused_unread(archive: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "model.mar", read(archive))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/bomb.json", bytes(50 << 20))
    found = inspect_archive(path, Silent())
    assert "model/bomb.json is compressed" in "\n".join(found.problems)
    assert found.files == ()


def test_what_hides_between_members_is_found(archive: Path, tmp_path: Path) -> None:
    """A reader of the stream, as TorchServe is, would unpack an entry that the directory does not list."""
    path = write(tmp_path / "model.mar", read(archive))
    raw = path.read_bytes()
    hidden = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 1, 1, 4, 0) + b"evilx"
    path.write_bytes(hidden + raw)  # zipfile forgives what stands in front
    assert "belong to no file" in problems(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(b"a: &x [1]\nb: *x\n", "aliases"), (b"[" * 100_000, "not plain YAML"), (b"\xff", "not readable text")],
)
def test_hostile_yaml_is_refused(archive: Path, tmp_path: Path, text: bytes, reason: str) -> None:
    path = write(tmp_path / "model.mar", read(archive) | {"model-config.yaml": text}, fix_sums=True)
    assert reason in problems(path)


def test_names_cannot_write_to_the_terminal(archive: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "model.mar", read(archive) | {"model/\x1b[2Jx.txt": b"x"})
    done = marquee("inspect", path)
    assert done.returncode == 1
    assert "\\x1b[2Jx.txt is not listed" in done.stderr
    assert "\x1b[2J" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "spoil",
    [lambda raw: raw[:-10], lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"no zip at all"],
)
def test_a_truncated_archive_is_one_clear_line(
    archive: Path, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "model.mar").write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(MarqueeError, match=r"model\.mar is not a complete archive"):
        inspect_archive(tmp_path / "model.mar", Silent())


def test_json_names_the_problems(archive: Path, tmp_path: Path) -> None:
    content = read(archive)
    del content["model/model_index.json"]
    done = marquee("inspect", write(tmp_path / "model.mar", content), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert not found["ok"]
    assert "model/model_index.json is missing" in found["problems"]


def test_a_missing_archive_says_what_makes_it(tmp_path: Path) -> None:
    done = marquee("inspect", tmp_path / "model.mar")
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert "marquee build" in done.stderr
