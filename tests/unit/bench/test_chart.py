"""Charts: what is drawn is in the picture, and a long series makes no large file."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from headrace.bench.chart import Panel, panel_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text):
    """(points of each line, all texts, viewBox)."""
    root = ElementTree.fromstring(text)
    lines = [
        np.array([[float(c) for c in point.split(",")] for point in line.get("points").split()])
        for line in root.iter(f"{SVG}polyline")
    ]
    return lines, [t.text for t in root.iter(f"{SVG}text")], [float(n) for n in root.get("viewBox").split()]


def test_panels_share_the_axis():
    x = np.linspace(0, 10, 11)
    panels = [Panel("value, °C", {"original": x * 2, "decoded": x}), Panel("error", {"error": -x})]
    lines, texts, (_, _, width, height) = drawn(panel_chart("Oven <1>", "hours", x, panels))
    assert [len(line) for line in lines] == [11, 11, 11]
    assert {"Oven <1>", "hours", "value, °C", "original", "decoded", "error", "20", "-10"} <= set(texts)
    for line in lines:
        np.testing.assert_array_equal(line[:, 0], lines[0][:, 0])
        assert (line >= 0).all()
        assert (line[:, 0] <= width).all()
        assert (line[:, 1] <= height).all()
    upper, lower = lines[0], lines[2]
    assert upper[:, 1].max() < lower[:, 1].min()
    assert upper[0, 1] > upper[-1, 1]  # what grows goes up
    assert lower[0, 1] < lower[-1, 1]


def test_a_long_line_keeps_its_extremes():
    y = np.sin(np.arange(500_000) / 900)
    y[[123_456, 300_000]] = 5.0, -7.0
    text = panel_chart("long", "s", np.arange(y.size) / 10, [Panel("value", {"y": y})])
    assert len(text) < 60_000
    (line,), _, _ = drawn(text)
    assert len(line) <= 2 * 720
    assert (np.diff(line[:, 0]) >= 0).all()
    low, high = line[:, 1].max(), line[:, 1].min()
    assert high == 72.0  # the top of the panel
    assert low - high == 190.0


@pytest.mark.parametrize(
    "y",
    [
        np.zeros(3),
        np.full(3, -1e-300),
        np.full(3, 7.0),
        np.array([5e-324, 0.0, 1e-320]),
        np.array([np.nan, 1.0, np.inf]),
        np.full(3, np.nan),
        np.array([1.7e308, -1.7e308, 0.0]),
    ],
)
def test_anything_can_be_drawn(y):
    lines, _, _ = drawn(panel_chart("t", "x", np.arange(3.0), [Panel("y", {"y": y})]))
    assert len(lines[0]) == np.isfinite(y).sum()


def test_one_point_is_a_picture_too():
    assert len(drawn(panel_chart("t", "x", np.zeros(1), [Panel("y", {"y": np.ones(1)})]))[0]) == 1
