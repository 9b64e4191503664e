"""What tests of line protocol share: decoders, the reference alone, rows of batches, bodies."""

import numpy as np
from hypothesis import strategies as st

from headrace.adapters.payloads import line_scanner
from headrace.adapters.payloads.base import RuleSettings
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_decoder import LineDecoder, LineNumbers
from headrace.adapters.payloads.line_protocol import skip_blank
from headrace.adapters.payloads.tag_paths import compile_tag_path
from headrace.core.frames import Shape
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory


def leave_all(data, at, stop, factor, tables, columns):
    """A scanner that knows nothing: every line is left to the reference."""
    at = skip_blank(data.tobytes(), at)
    return (at, 0) if at >= stop else (at, 1)


class Lines:
    """A decoder of line protocol with all it needs.

    Parameters
    ----------
    known : what there is already, by another decoder.
    """

    def __init__(
        self, path="{site}/{host}/{measurement}/{field}", scan=line_scanner.scan, known=None, **settings
    ):
        limits = {name: settings.pop(name) for name in ("n_max", "n_sensors_max") if name in settings}
        self.directory = SensorDirectory() if known is None else known.directory
        self.groups = DeviceGroups(self.directory, **limits)
        naming = compile_tag_path(path, (), {}, keeps_others=True)
        rule = RuleSettings(path="d/{key}", **settings)
        self.decoder = LineDecoder("lines", self.directory, self.groups, naming, rule, scan)
        self.n_left = 0
        read = self.decoder._read

        def counted(*arguments):
            self.n_left += 1
            return read(*arguments)

        self.decoder._read = counted

    def decode(self, body, factor=1, arrival_ns=7):
        """(rows, rejects) of a whole body."""
        numbers, at, rows, rejects = LineNumbers(body), 0, [], []
        while at < len(body):
            done = self.decoder.decode(numbers, at, factor, arrival_ns)
            assert done.end > at
            at = done.end
            rows += rows_of(self.directory, done.batches)
            rejects += done.rejects
        return rows, rejects


def rows_of(directory, batches):
    """Every sample as (path, type, ts_ns, value), in the order of the frames."""
    out = []
    for batch in batches:
        batch.check_columns()
        values, quality = batch.values.reshape(-1), batch.quality
        quality = np.zeros(values.size, np.uint8) if quality is None else quality.reshape(-1)
        columns, start = batch.column, batch.start
        if batch.shape is Shape.DENSE:
            columns = np.tile(np.arange(batch.width), batch.n_frames)
            start = np.arange(batch.n_frames + 1) * batch.width
        for frame in range(batch.n_frames):
            slot, span = int(batch.slot[frame]), range(start[frame], start[frame + 1])
            assert (np.diff(columns[span.start : span.stop].astype(int)) > 0).all(), "columns ascend"
            assert directory.layout(slot).dtype == batch.dtype
            for i in span:
                if quality[i] != Quality.ABSENT:
                    value = values[i].item()
                    value = batch.dictionary[value] if batch.dictionary else value
                    path = directory.sensor_path(slot, int(columns[i]))
                    out.append((path, batch.dtype, int(batch.ts_ns[frame]), value))
    return out


NAMES = st.sampled_from(["cpu", "m", "a b", "x,y", "k=v", "é", "back\\slash", "#c", 'q"', "t\tt", "r\rr"])
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr), st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(["0", "-0", "+1", "1.", ".5", "-.5e-3", "1e22", "1e23", "9007199254740993", "0.1e-330", "1e400", "007"]),
    st.integers(-(10**25), 10**25).map(str),
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(
        ["", "auto", "two words", 'a "quote"', "back\\", "line\nbreak", "naïve", "\x00", "x" * 1_025]
    ),
    st.text(max_size=4),
)


def escaped(text, specials):
    """A name as it is written."""
    return "".join("\\" + char if char in specials else char for char in text)


def quoted(text):
    """A text as it is written."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


VALUES = st.one_of(
    FLOATS, st.integers(-(2**64), 2**64).map(lambda n: f"{n}i"), st.integers(-1, 2**65).map(lambda n: f"{n}u"),
    st.integers(-5, 5).map(lambda n: f"{n}i"), TEXTS.map(quoted),
    st.sampled_from(["t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE", "tRUE", "yes", "", "nan", "inf"]),
)  # fmt: skip
TIMES = st.one_of(
    st.integers(-(2**64), 2**64).map(str), st.integers(10**18, 10**18 + 5).map(str),
    st.sampled_from(["", "+5", "x", "1.5", "5 6"]),
)  # fmt: skip


@st.composite
def good_or_bad_lines(draw):
    """A line of a few series and fields, most of them as they should be."""
    key = escaped(draw(NAMES), ", ")
    for name in draw(st.lists(st.sampled_from(["host", "site", "cpu", "é,"]), max_size=3)):
        key += f",{escaped(name, ',= ')}={escaped(draw(NAMES | st.just('')), ',= ')}"
    fields = [
        f"{escaped(name, ',= ')}={draw(VALUES)}"
        for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=draw(st.booleans())))
    ]
    gap = draw(st.sampled_from([" ", " ", " ", "  "]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", " \n", "\n\n# a=1\n  ", "\n \t"]))
    line = f"{key}{gap}{','.join(fields)}{gap}{draw(TIMES)}{end}".encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(line)))
        line = (
            line[:at]
            + draw(st.sampled_from([b'"', b"\\", b",", b"=", b" ", b"\xff", b"\n", b""]))
            + line[at + 1 :]
        )
    return line


BODIES = st.lists(good_or_bad_lines(), min_size=1, max_size=6).map(b"".join)
