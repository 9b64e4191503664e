"""Warming: a plant's own operators are compiled before its first batch."""

import pytest

from headrace.pipeline.flows import FlowSpec
from headrace.pipeline.panes import merge_panes
from headrace.pipeline.time_weights import weigh_dense, weigh_loose
from headrace.runtime.warm import warm_kernels


@pytest.mark.timeout(240)
def test_the_operators_of_the_plants_pipelines_are_compiled_too():
    specs = [
        FlowSpec(
            "a",
            "x/**",
            ({"op": "sliding", "size": "5m", "every": "1m", "agg": ("mean", "max")},),
            "{parent}/{signal}_{agg}",
        ),
        FlowSpec("b", "x/**/t", ({"op": "time_weighted_mean", "every": "1m"},), "{parent}/own"),
        FlowSpec(
            "c",
            "**",
            ({"op": "map", "call": "operator:neg"}, {"op": "resample", "every": "1s"}),
            "{parent}/{signal}_c",
        ),
    ]
    warm_kernels(("u16",), specs)
    for kernel in (merge_panes, weigh_dense, weigh_loose):
        assert kernel.signatures, kernel
