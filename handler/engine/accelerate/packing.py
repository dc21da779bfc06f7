"""Convolution weights laid out for oneDNN once, at compile time, also where the number of rows is free.

torch 2.13 packs them only for a fixed batch; else oneDNN lays them out anew in each call, which took 1.3 of
the 3.2 s of a step of SD 1.5 (measured with ONEDNN_VERBOSE=profile_exec, two rows at 256x256).
"""

from __future__ import annotations

import functools
from typing import Any

import torch


@functools.cache
def pack_convolutions() -> None:
    """From here on Inductor's freezing packs every convolution's weights; once for this process."""
    from torch._inductor.fx_passes import freezing_patterns
    from torch._inductor.pattern_matcher import Arg, CallFunction

    register: Any = freezing_patterns.register_freezing_graph_pattern
    convolution: Any = torch.ops.mkldnn._convolution_pointwise.default
    after_torchs_own = len(freezing_patterns.pass_patterns)
    pattern = CallFunction(convolution, *(Arg() for _ in range(10)))
    register(pattern, extra_check=_has_plain_weights, pass_number=after_torchs_own)(_pack)


def _has_plain_weights(match: Any) -> bool:
    return bool(match.output_node().args[1].op == "get_attr")


def _pack(match: Any, *_: Any) -> None:
    node = match.output_node()
    sample, weight, _bias, padding, stride, dilation, groups = node.args[:7]
    with match.graph.inserting_before(node):
        packed = match.graph.call_function(
            torch.ops.mkldnn._reorder_convolution_weight,
            (weight, padding, stride, dilation, groups, _hinted(sample.meta["val"].shape)),
        )
    node.replace_input_with(weight, packed)


def _hinted(shape: Any) -> list[int]:
    """The sizes, with the example's number of rows where it is free."""
    return [size if isinstance(size, int) else size.node.hint for size in shape]
