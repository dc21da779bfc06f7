"""safetensors read and rewritten as a stream: headers checked, tensors renamed or cast in small blocks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from pipeline.archive.layout import Member, read_blocks
from pipeline.errors import MarqueeError

DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "C64": 8,
}
FLOATS = ("F64", "F32", "F16", "BF16")
LENGTH_BYTES = 8  # the header's length, little-endian, stands before the header
LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit
# A bound of ours: SD 1.5's largest header is far below 1 MB, and Python needs gigabytes to parse 100 MB.
MAX_HEADER_BYTES = 8 << 20
MAX_DIMENSIONS = 16
MAX_COUNT = 1 << 62
MAX_REASON_CHARACTERS = 200
HEADER_ALIGNMENT = 8


class NotSafetensors(ValueError):
    """The file is not a complete safetensors file; the message says why."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: ``start`` and ``size`` are bytes, counted from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class TensorFile:
    """A checked safetensors file and its tensors in the order they lie in."""

    path: Path
    tensors: tuple[StoredTensor, ...]


@dataclass(frozen=True)
class Rewrite:
    """The new name and dtype of a tensor (the stored ones where nothing changes)."""

    source: StoredTensor
    name: str
    dtype: str

    @property
    def size(self) -> int:
        if self.dtype == self.source.dtype:
            return self.source.size
        return math.prod(self.source.shape) * DTYPE_BYTES[self.dtype]


def read_tensor_file(path: Path) -> TensorFile:
    """Read and check the header: every tensor's bytes present, none shared, none left over."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return TensorFile(path, read_tensors(file, size))


def read_tensors(file: IO[bytes], size: int) -> tuple[StoredTensor, ...]:
    """The tensors of a safetensors file of ``size`` bytes, in the order they lie in.

    Only the header is read. Raises NotSafetensors unless every tensor's bytes are there, none are shared and
    none are left over.
    """
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size < LENGTH_BYTES or not len("{}") <= length <= LARGEST_HEADER_BYTES:
        raise NotSafetensors("it has no safetensors header")
    if size < LENGTH_BYTES + length:
        raise NotSafetensors(
            f"it is cut off in its header, at {size} bytes: its first bytes say that the header has {length}"
        )
    if length > MAX_HEADER_BYTES:
        raise NotSafetensors(f"its header has {length} bytes; at most {MAX_HEADER_BYTES} are read")
    try:
        header = parse_header(file.read(length))
        tensors = sorted(
            _tensors(header, LENGTH_BYTES + length), key=lambda tensor: (tensor.start, tensor.size)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]
        raise NotSafetensors(f"its safetensors header is damaged ({reason})") from error
    end = LENGTH_BYTES + length
    for tensor in tensors:
        if tensor.start != end:
            raise NotSafetensors(
                f"the bytes of {tensor.name[:100]!r} do not follow those of the tensor before it"
            )
        end += tensor.size
    if end != size:
        raise NotSafetensors(f"it has {size} bytes, and its header says {end}")
    return tuple(tensors)


def parse_header(raw: bytes) -> dict[str, Any]:
    """The header's JSON object; raises ValueError where another reader might read it differently."""
    if not raw.startswith(b"{"):
        raise ValueError("it does not begin with {")
    return dict(json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is in it twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _tensors(header: dict[str, Any], data_start: int) -> Iterator[StoredTensor]:
    for name, entry in header.items():
        if name == "__metadata__":
            if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
                raise ValueError("__metadata__ is not an object of texts")
            continue
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if dtype not in DTYPE_BYTES:
            raise ValueError(f"{name[:100]!r} has the unknown dtype {str(dtype)[:20]!r}")
        if len(shape) > MAX_DIMENSIONS or not all(_is_count(number) for number in (*shape, start, end)):
            raise ValueError(f"{name[:100]!r} has a shape or offsets that are not whole numbers from 0")
        if end - start != math.prod(shape) * DTYPE_BYTES[dtype]:
            raise ValueError(f"{name[:100]!r} has a shape that its bytes do not fit")
        yield StoredTensor(name, dtype, shape, data_start + start, end - start)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def rewritten_member(path: str, file: TensorFile, rewrites: list[Rewrite]) -> Member:
    """The file with its tensors renamed and cast; memory stays at a few blocks however large they are."""
    header = _header(rewrites)

    def chunks() -> Iterator[bytes]:
        yield header
        for rewrite in rewrites:
            yield from _cast(file.path, rewrite)

    return Member(path, len(header) + sum(rewrite.size for rewrite in rewrites), chunks)


def _header(rewrites: list[Rewrite]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for rewrite in rewrites:
        end = start + rewrite.size
        entries[rewrite.name] = {
            "dtype": rewrite.dtype,
            "shape": list(rewrite.source.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _cast(path: Path, rewrite: Rewrite) -> Iterator[bytes]:
    source = rewrite.source
    blocks = read_blocks(path, source.start, source.size)
    if rewrite.dtype == source.dtype:
        yield from blocks
        return
    import torch

    torch_types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for block in blocks:
        values = torch.frombuffer(bytearray(block), dtype=torch_types[source.dtype])
        cast = values.to(torch_types[rewrite.dtype])
        if not torch.equal(cast.isfinite(), values.isfinite()):
            raise MarqueeError(
                f"{path}: {source.name} goes up to {values.abs().max():.3g}, too much for {rewrite.dtype}",
                cure="build with --dtype bf16 or --dtype keep",
            )
        yield cast.view(torch.uint8).numpy().tobytes()


def keep(tensor: StoredTensor) -> Rewrite:
    """The tensor as it is stored."""
    return Rewrite(tensor, tensor.name, tensor.dtype)


def cast_to(rewrite: Rewrite, dtype: str) -> Rewrite:
    """The same with another dtype, where it is a floating-point tensor."""
    return replace(rewrite, dtype=dtype) if rewrite.dtype in FLOATS else rewrite
