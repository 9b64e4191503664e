"""Map: ``{ op = "map", call = "ovens:excess" }``, a function of one's own over whole batches.

The function takes a `ColumnBatch` and returns one: columns in engineering units, never one sample at a time::

    def excess(batch):
        return batch.with_values(batch.values - 180.0)

``call`` is ``module:function``; the module is looked for beside the plant file first, then among the installed ones.
It must give the same values for the same samples however they are cut into batches: each value from its own frame
alone, no clock, no chance, no memory. What it gives is float64.

An error in the function ends a run over history. In a running plant it must not stop the collection: the batch's
derived values become bad, and the log says why, once.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from headrace.core.errors import ConfigError, PluginError
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Layout
from headrace.core.quality import Quality, usable
from headrace.pipeline.base import Stateless, StepResult
from headrace.pipeline.operators.base import Context, FromStep

Array = npt.NDArray[Any]
ON_ERROR = ("bad", "fail")
_log = logging.getLogger("headrace.pipeline.map")


@dataclass(frozen=True, slots=True, eq=False)
class ColumnBatch:
    """Frames as a user's function sees them.

    Parameters
    ----------
    values : float64 in engineering units: [F, D] for dense frames, a column for each of `names`; [N] for sparse
        frames and waves, where ``column: uint16[N]`` (or 0) says which of `names` each value is of.
    quality : uint8, shaped as `values`: `usable` says which values count.
    ts_ns : int64[F] (dense) or int64[N], ns since 1970 UTC.
    names, units : of the D columns: last level of the path ("" for a lone sensor), and unit.
    """

    values: npt.NDArray[np.float64]
    quality: npt.NDArray[np.uint8]
    ts_ns: npt.NDArray[np.int64]
    column: npt.NDArray[np.uint16] | None
    names: tuple[str, ...]
    units: tuple[str, ...]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Which values are there and good enough to count; shaped as `values`."""
        return usable(self.quality)

    def with_values(self, values: npt.ArrayLike) -> ColumnBatch:
        """The same batch with other values.

        Values that are not finite become bad.

        Raises
        ------
        ValueError : the shape is another.
        """
        new = np.asarray(values, np.float64)
        if new.shape != self.values.shape:
            raise ValueError(f"with_values got an array of shape {new.shape}, expected {self.values.shape}")
        return replace(self, values=new)

    def with_quality(self, quality: npt.ArrayLike) -> ColumnBatch:
        """The same batch with another quality byte for each value. Raises `ValueError` for another shape."""
        new = np.asarray(quality, np.uint8)
        if new.shape != self.values.shape:
            raise ValueError(f"with_quality got an array of shape {new.shape}, expected {self.values.shape}")
        return replace(self, quality=new)


@dataclass(frozen=True)
class MapOperator(FromStep):
    """``{ op = "map", call = "ovens:excess" }``; `folder` and `on_error` are filled in by whoever runs it."""

    call: Any
    folder: str = ""
    on_error: str = "bad"
    ends_flow: ClassVar[bool] = False
    remembers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ConfigError(f"on_error {self.on_error!r} is not one of {', '.join(ON_ERROR)}")
        if not callable(self.function):
            raise ConfigError(f"{self.call!r} is no function; write call = 'module:function'")

    @classmethod
    def from_step(cls, step: Mapping[str, Any], where: str) -> Self:
        """Build from the step; a function itself may stand for its name."""
        call = step.get("call")
        if not callable(call):
            return super().from_step(step, where)
        named = super().from_step({**step, "call": "operator:neg"}, where)
        return replace(named, call=call)

    @cached_property
    def function(self) -> Callable[[ColumnBatch], ColumnBatch]:
        """The function. Raises `ConfigError` where it can't be found."""
        if callable(self.call):
            found: Callable[[ColumnBatch], ColumnBatch] = self.call
            return found
        return load_function(self.call, Path(self.folder) if self.folder else None)

    def layout(self, layout: Layout) -> Layout:
        """The same columns as float64 in engineering units."""
        columns = (replace(c, scale=1.0, offset=0.0, labels=()) for c in layout.columns)
        return Layout("f64", tuple(columns))

    def stage(self, context: Context) -> Mapped:
        """The function over the frames of one shard."""
        return Mapped(self, context.layout)


def function_name(call: Any) -> str:
    """``module:function`` of a function, or the text that names it."""
    return call if isinstance(call, str) else f"{call.__module__}:{call.__qualname__}"


def load_function(call: str, folder: Path | None = None) -> Callable[[ColumnBatch], ColumnBatch]:
    """Find ``module:function``, in `folder` first.

    Raises
    ------
    ConfigError : no such module or function, or the module fails while it is imported.
    """
    name, colon, attribute = str(call).partition(":")
    if not colon or not all(part.isidentifier() for part in [*name.split("."), attribute]):
        raise ConfigError(f"{call!r} does not name a function; write 'module:function'")
    file = None if folder is None else folder.joinpath(*name.split(".")).with_suffix(".py")
    try:
        module = (
            _from_file(name, file) if file is not None and file.is_file() else importlib.import_module(name)
        )
    except Exception as e:
        beside = "" if file is None else f"; it is looked for at {file} first"
        raise ConfigError(f"module {name!r} can't be imported: {type(e).__name__}: {e}{beside}") from e
    if not callable(getattr(module, attribute, None)):
        raise ConfigError(f"module {name!r} has no function {attribute!r}")
    found: Callable[[ColumnBatch], ColumnBatch] = getattr(module, attribute)
    return found


def _from_file(name: str, file: Path) -> Any:
    """A module from its file; apart from installed modules of that name, and from those of other folders."""
    key = f"headrace_plant_{abs(hash(str(file.resolve())))}.{name}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[key]
        raise
    return module


class Mapped(Stateless):
    """A function over frames. Cost: that of the function, and about 5 ns a sample for units."""

    def __init__(self, operator: MapOperator, layout: Layout) -> None:
        self._operator, self._layout = operator, layout
        self._names = tuple(c.name for c in layout.columns)
        self._units = tuple(c.unit for c in layout.columns)
        self._said = False

    def process(self, batch: FrameBatch, result: StepResult) -> FrameBatch | None:
        """What the function makes of the frames."""
        given = self._columns(batch)
        try:
            with np.errstate(all="ignore"):  # values that do not count may be anything
                found = self._operator.function(given)
            if not isinstance(found, ColumnBatch):
                raise TypeError(f"it returned {type(found).__name__}, not batch.with_values(...)")
        except Exception as e:
            text = f"function {function_name(self._operator.call)} failed: {type(e).__name__}: {e}"
            if self._operator.on_error == "fail":
                raise PluginError(text) from e
            if not self._said:
                _log.error("%s; its values are bad", text)
                self._said = True
            bad = np.where(given.quality < Quality.ABSENT, np.uint8(Quality.BAD), given.quality)
            return batch.with_(values=np.zeros_like(given.values), quality=bad)
        self._said = False
        return self._frames(batch, found)

    def _columns(self, batch: FrameBatch) -> ColumnBatch:
        if batch.start is None:
            values, ts_ns = self._layout.grid.values(batch.values), batch.ts_ns
        else:
            column = np.zeros(batch.n_values, np.uint16) if batch.column is None else batch.column
            values, ts_ns = self._layout.grid.values_at(batch.values, column), batch.value_times()
        quality = np.zeros(values.shape, np.uint8) if batch.quality is None else batch.quality
        return ColumnBatch(values, quality, ts_ns, batch.column, self._names, self._units)

    def _frames(self, batch: FrameBatch, found: ColumnBatch) -> FrameBatch:
        finite = np.isfinite(found.values)
        quality = found.quality
        if not finite.all():
            quality = np.where(~finite & usable(quality), np.uint8(Quality.BAD_NOT_FINITE), quality)
        values = np.where(finite, found.values, 0.0)
        return batch.with_(values=values, quality=quality if quality.any() else None)
