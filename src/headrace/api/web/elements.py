"""The parts of the page as NiceGUI elements: each is one Vue component of ``components/``, shown by its properties."""

from __future__ import annotations

from typing import Any

import nicegui.elements.echart  # noqa: F401 (makes its module known to the browser)
from nicegui.element import Element


class _Part(Element):
    """An element whose properties are what it shows."""

    def show(self, **shown: Any) -> None:
        """Show something else; what is shown already is not sent again."""
        changed = {name: value for name, value in shown.items() if self._props.get(name) != value}
        if changed:
            self._props.update(changed)
            self.update()


class TopBar(_Part, component="components/top_bar.js"):
    """Name, state, banner, theme and keys.

    Shows ``head`` (state, tone, banner, detail, clock, zone), ``plant`` and ``version``.
    """


class PlantTree(_Part, component="components/plant_tree.js"):
    """Tree and search; shows ``charted`` (path → colour).

    Says ``open`` (path, after), ``search`` (text, number) and ``pick`` (path); takes ``fill`` and ``results``.
    """


class KeyFigures(_Part, component="components/key_figures.js"):
    """Shows ``figures``, see `plant_facts.figures`."""


class PlantRail(_Part, component="components/plant_rail.js"):
    """Shows ``lights``, ``storage``, ``refused`` and ``devices``; says ``devices`` (name, text)."""


class TrendPanel(_Part, component="components/trend_panel.js", esm={"headrace-chart": "chart"}):
    """The charts; shows ``zone``, ``start`` and ``colors`` (path → colour).

    Says ``look`` (number, length_ms, end_ms, width, hidden) and ``pick`` (path); takes ``apply`` and ``renew``.
    """
