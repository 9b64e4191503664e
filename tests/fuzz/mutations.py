"""How valid bytes become hostile ones, and how much memory a reader of them may take."""

import tracemalloc
from contextlib import contextmanager

import pyarrow as pa
from hypothesis import strategies as st

EXTREMES = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x00" * 8,
    b"\x7f" + b"\xff" * 3,
    b"\xff\xff\xff\x7f",
]


@st.composite
def mutated(draw, data, n_max=4):
    """`data` with up to `n_max` changes: bytes replaced, cut out, doubled, cut off, or extremes written over them."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, n_max))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 16))
        kind = draw(st.integers(0, 6))
        if kind == 0:
            data[at : at + 1] = draw(st.binary(max_size=2))
        elif kind == 1:
            extreme = draw(st.sampled_from(EXTREMES))
            data[at : at + len(extreme)] = extreme
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            del data[at:]
        elif kind == 5 and data:
            data[at % len(data)] ^= 1 << draw(st.integers(0, 7))
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


def any_of(*samples, n_max=4):
    """Mutations of one of several valid inputs, and bytes of any kind."""
    return st.one_of(*[mutated(sample, n_max) for sample in samples], st.binary(max_size=80))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def other_json(draw, document):
    """A JSON document with one of its values, at any depth, replaced, removed or added to."""
    if isinstance(document, dict) and document and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(document)))
        kind = draw(st.integers(0, 9))
        rest = {name: value for name, value in document.items() if name != key}
        if kind == 0:
            return rest
        if kind == 1:
            return {**document, draw(st.text(max_size=5)): draw(JSON)}
        return {**rest, key: draw(other_json(document[key]))}
    if isinstance(document, list) and document and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(document) - 1))
        return [*document[:at], draw(other_json(document[at])), *document[at + 1 :]]
    return draw(JSON)


@contextmanager
def at_most(n_bytes):
    """Fail where more memory is taken meanwhile, by Python and NumPy, or by Arrow."""
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), pool.max_memory()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if pool.max_memory() > most:  # Arrow only tells its highest ever
        peak += pool.max_memory() - before
    assert peak <= n_bytes, f"{peak:,} bytes of memory, expected at most {n_bytes:,}"
