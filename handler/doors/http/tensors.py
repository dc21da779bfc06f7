"""Tensors of the Open Inference Protocol: JSON or binary in, our fields' values out, and back.

A BYTES element in binary form is a little-endian length of 4 bytes and then the bytes
(docs of Triton's binary tensor data extension).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handler.contract.problem import Refusal, brief
from handler.doors.http.renamed_fields import field_problem

SIZES: Mapping[str, str] = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
DATATYPES = ("BYTES", *SIZES)
MOST_TENSORS = 64
MOST_ELEMENTS = 10_000


class TensorError(ValueError):
    """A tensor that cannot be read; ``tensor`` is its name."""

    def __init__(self, tensor: str, message: str) -> None:
        super().__init__(message)
        self.tensor = tensor


@dataclass(frozen=True)
class Tensor:
    """A tensor that came, its values in row-major order."""

    name: str
    values: Sequence[Any]


def read_tensors(inputs: Any, binary: bytes) -> dict[str, Tensor] | Refusal:
    """The tensors by name; ``binary`` is what follows the JSON, and must be used up."""
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MOST_TENSORS:
        return _refuse("inputs", f"inputs must be a list of 1 to {MOST_TENSORS} tensors")
    tensors: dict[str, Tensor] = {}
    at = 0
    try:
        for one in inputs:
            tensor, at = _read(one, binary, at)
            if tensor.name in tensors:
                raise TensorError(tensor.name, f"the tensor {tensor.name} is given twice")
            tensors[tensor.name] = tensor
    except TensorError as error:
        return _refuse(error.tensor, str(error))
    if at != len(binary):
        return _refuse("inputs", f"{len(binary) - at} bytes follow the last tensor's data")
    return tensors


def _read(given: Any, binary: bytes, at: int) -> tuple[Tensor, int]:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise TensorError("inputs", "each input must be an object with a name, a datatype and a shape")
    name, datatype = str(given["name"])[:80], given.get("datatype")
    if datatype not in DATATYPES:
        raise TensorError(
            name, f"{name}: datatype must be one of {', '.join(DATATYPES)}, not {brief(datatype)}"
        )
    count = _elements(name, given.get("shape"))
    parameters = given.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, Mapping) else None
    if size is None:
        return Tensor(name, _flat(name, given.get("data"), count)), at
    if "data" in given:
        raise TensorError(name, f"{name} has data and binary_data_size; give one of them")
    if type(size) is not int or not 0 <= size <= len(binary) - at:
        raise TensorError(
            name, f"{name}: binary_data_size is {brief(size)}; {len(binary) - at} bytes are left"
        )
    values = _unpack(name, str(datatype), binary[at : at + size], count)
    return Tensor(name, values), at + size


def _elements(name: str, shape: Any) -> int:
    sides = shape if isinstance(shape, list) else []
    if not sides or len(sides) > 4 or any(type(side) is not int or side < 1 for side in sides):
        raise TensorError(name, f"{name}: shape must be a list of 1 to 4 whole numbers above 0")
    count = math.prod(sides)
    if count > MOST_ELEMENTS:
        raise TensorError(name, f"{name} has {brief(count)} elements; at most {MOST_ELEMENTS} can be taken")
    return count


def _flat(name: str, data: Any, count: int) -> list[Any]:
    values = data
    for _ in range(3):  # a shape has four sides at most
        if isinstance(values, list) and values and all(isinstance(one, list) for one in values):
            values = [value for row in values for value in row]
    if not isinstance(values, list) or len(values) != count:
        raise TensorError(name, f"{name}: data must be a list of the {count} elements that its shape says")
    return values


def _unpack(name: str, datatype: str, data: bytes, count: int) -> list[Any]:
    if datatype != "BYTES":
        form = struct.Struct("<" + SIZES[datatype])
        if len(data) != count * form.size:
            raise TensorError(
                name, f"{name} has {len(data)} bytes; {count} of {datatype} are {count * form.size}"
            )
        return [value for (value,) in form.iter_unpack(data)]
    values, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise TensorError(name, f"{name}: the last element's length is cut off")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise TensorError(name, f"{name}: an element of {length} bytes has {len(data) - at} left")
        values.append(_text(name, data[at : at + length]))
        at += length
    if len(values) != count:
        raise TensorError(name, f"{name} has {len(values)} elements; its shape says {count}")
    return values


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TensorError(name, f"{name}: byte {error.start} of an element is not UTF-8") from error


def pack_texts(texts: Sequence[str]) -> bytes:
    """A BYTES tensor's binary form."""
    return b"".join(struct.pack("<I", len(text)) + text.encode("ascii") for text in texts)


def _refuse(field: str, message: str) -> Refusal:
    return field_problem(field, None, "tensors of the Open Inference Protocol", message)
