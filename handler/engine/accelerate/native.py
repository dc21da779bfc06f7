"""AOTInductor's code for a CPU, called through its C interface.

torch's own loader (``aoti_load_package``, torch 2.13) keeps Python's lock while the code runs, so that calls
wait for each other. A call through ctypes lets go of it. The functions are those of
torch/csrc/inductor/aoti_runtime/interface.h.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch

POINTER = ctypes.c_void_p
POINTERS = ctypes.POINTER(ctypes.c_void_p)


class NativeCode:
    """A shared library made by AOTInductor; up to ``callers`` threads may call it at the same time.

    Raises OSError where the library cannot be loaded, RuntimeError where it refuses to start.
    """

    def __init__(self, library: Path, callers: int) -> None:
        code = ctypes.CDLL(str(library))
        try:
            create = code.AOTInductorModelContainerCreateWithDevice
            self._run = code.AOTInductorModelContainerRun
        except AttributeError as error:
            raise OSError(f"{library.name} holds none of AOTInductor's code") from error
        create.argtypes = [POINTERS, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p]
        size = ctypes.c_size_t
        arguments: list[Any] = [POINTER, POINTERS, size, POINTERS, size, POINTER, POINTER]
        self._run.argtypes = arguments
        self._container = POINTER()
        if create(ctypes.byref(self._container), callers, b"cpu", None):
            raise RuntimeError(f"{library.name} does not start")

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The code's only output; RuntimeError where it fails (its own message goes to stderr)."""
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
        handles = (POINTER * len(tensors))(*map(_address, capsules))
        result = (POINTER * 1)()
        if self._run(self._container, handles, len(tensors), result, 1, None, None):
            raise RuntimeError(
                "the compiled UNet failed on " + ", ".join(str(tuple(t.shape)) for t in tensors)
            )
        output: torch.Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(_capsule(result[0]))
        return output


_api = ctypes.pythonapi
_api.PyCapsule_GetName.argtypes, _api.PyCapsule_GetName.restype = [ctypes.py_object], ctypes.c_char_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_GetPointer.restype = POINTER
_api.PyCapsule_New.argtypes = [POINTER, ctypes.c_char_p, POINTER]
_api.PyCapsule_New.restype = ctypes.py_object


def _address(capsule: Any) -> Any:
    return _api.PyCapsule_GetPointer(capsule, _api.PyCapsule_GetName(capsule))


def _capsule(address: Any) -> Any:
    return _api.PyCapsule_New(address, None, None)
