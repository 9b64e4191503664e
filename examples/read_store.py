"""A sensor's samples out of a store's warm and cold tier without Headrace: Python, NumPy, pyarrow and pcodec.

    python examples/read_store.py STORE plant/oven/temp

docs/format.md says what is read here, in 150 lines of code: values const, raw, rle, pco and origin, within a
bound quantise; times regular and ticks; integers by every coder. Anything else is refused by name. Aggregates need
no codec: headers are columns, which `read_means` reads, or DuckDB:

    SELECT path, sum(sum) / sum(count) AS mean FROM 'STORE/segments/warm/*/*.parquet' GROUP BY path
"""

import json
import sys
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pcodec.standalone import simple_decompress


def varint(b):  # all bytes are read from the front of a BytesIO
    return byte if (byte := b.read(1)[0]) < 128 else byte - 128 + (varint(b) << 7)


def signed(b):
    return (z := varint(b)) >> 1 ^ -(z & 1)


def part(b, n):  # n numbers behind the size of their bytes
    return integers(BytesIO(b.read(varint(b))), n)


def summed(zs, order):  # residuals of an order: less the first number, the one before, the change before
    r = np.array([z >> 1 ^ -(z & 1) for z in zs], "i8")
    r[1:] = np.cumsum(r[1:]) if order == 2 else r[1:] + r[:1] * (order == 0)
    return np.cumsum(r) if order in (1, 2) else r


def adaptive(b, n):  # Rice codes whose parameter follows a running mean
    head, bits, zs = b.read(1)[0], int.from_bytes(b.read(), "little"), []
    mean = 8 << (head >> 2)
    for i in range(n):
        high, k = (bits & -bits).bit_length() - 1, max((mean * 11 >> 8).bit_length() - 1, 0)
        top, width = (high, k) if high < 24 else (0, 64)
        zs.append(top << width | bits >> high + 1 & 2**width - 1)
        bits >>= high + 1 + width
        mean += min(zs[-1], 2**56) - (mean >> 4) if i else 0
    return summed(zs, head & 3)


def frequencies(counts, new, k):  # where each of 40 buckets starts in 4,096, which is where the last one ends
    counts += 8 * new[1:-1] + (k > 0) * (new[:-2] + new[2:])
    total, new[:] = int(counts.sum()), 0
    starts = np.arange(40) + ((counts.cumsum() - counts) * -((-4056 << 32) // total) >> 32)
    counts -= (counts >> 1) * (total > 8000)
    return [*starts.tolist(), 4096]


EDGES = [*range(16), *((4 + f) << (o - 2) for o in range(4, 10) for f in range(4))]  # of the buckets


def model(b, n, head):  # how large numbers are by rANS over a model that learns; their low bits from the end
    body, log_mean, zs = b.read(), head - 8 >> 2, []
    words, low, mean, m = BytesIO(body), int.from_bytes(body, "big"), 8 << log_mean, 3 << min(log_mean + 4, 8)
    states = [int.from_bytes(words.read(4), "little") for _ in range(2 if n >= 512 else 1)]
    above, new, starts = [(1 << 64) * m**e // (m + 32) ** e for e in EDGES], np.zeros(42, "i8"), []
    counts = np.array([*(1 + (150 * (above[i] - above[i + 1]) >> 64) for i in range(39)), 1])
    for i in range(n):
        k, state = max((mean + 4).bit_length() - 8, 0), states.pop(0)
        starts = frequencies(counts, new, k) if i in (0, 9, 17, 33, 65) or i % 128 == 1 < i else starts
        at = int(np.searchsorted(starts, state & 4095, "right")) - 1
        state = (starts[at + 1] - starts[at]) * (state >> 12) + (state & 4095) - starts[at]
        states.append(state if state > 65535 else state << 16 | int.from_bytes(words.read(2), "big"))
        new[at + 1] += 1
        top, more = (at, 0) if at < 16 else (4 | at & 3, (at >> 2) - 2)
        mean = min(mean - (mean >> 4) + (min(2 * top + 1 << more, 384) << k >> 1), 1 << 60) if i else mean
        top, width, low = (0, (low & 63) + 1, low >> 6) if at == 39 else (top, k + more, low)
        zs.append(top << width | low & 2**width - 1)
        low >>= width
    return summed(zs, head & 3)


def centred(b, n):  # linear prediction around a centre
    order, shift = b.read(2)
    c, centre = np.frombuffer(b.read(2 * order), "<i2").astype("i8")[::-1], signed(b)
    y[:order] = np.cumsum((y := integers(b, n))[:order])
    for i in range(order, n):
        y[i] += c @ y[i - order : i] >> shift
    return y + centre


def sparse(b, n):  # they rise by the same but at some places
    rise, n_others = np.append(signed(b), np.full(n - 1, signed(b))), varint(b)
    rise[np.cumsum(part(b, n_others) + 1)] += integers(b, n_others)
    return np.cumsum(rise)


# fmt: off
CODERS = {2: adaptive, 3: centred, 5: sparse, 7: lambda b, n: np.full(n, signed(b)),  # 0: few different numbers
    0: lambda b, n: part(b, varint(b))[(which := integers(b, n)) << 1 ^ which >> 63],
    4: lambda b, n: (lambda step, rest: (integers(b, n).view("u8") * step + rest).view("i8"))(varint(b), varint(b)),
    1: lambda b, n: simple_decompress(b.read()), 6: lambda b, n: signed(b) + integers(b, n)}
# fmt: on


def integers(b, n):  # none have no bytes
    coder = b.read(1)[0] if n else 0
    return model(b, n, coder) if coder > 7 else CODERS[coder](b, n) if n else np.empty(0, "i8")


def origin(b, n):  # floats by the integers behind them
    if (head := b.read(1)[0]) < 0x80:
        return integers(b, n)
    # Decimals in one byte, or anything in more.
    kind, cast, digits, form = 1 + ((how := b.read(1)[0]) >> 6 & 1), how >> 4 & 3, how & 15, ""
    if how < 0x80:
        kind, cast, digits = how & 7, how >> 3 & 3, b.read(1)[0] if how & 7 in (1, 2) else 0
        form = ("<f8" if how & 0x40 else "<f4") if how & 0x20 or kind == 4 else ""
    if head & 0x70 or cast > 1:
        raise NotImplementedError("an origin with patches or texts is not read here")
    step, offset = np.frombuffer(b.read(2 * int(form[2])), form).tolist() if form else (1.0, 0.0)
    y = integers(b, n).astype("i4" if kind == 3 else "i8")
    if kind in (0, 3):  # floats whose neighbours have neighbouring bits
        return (y ^ y >> 8 * y.itemsize - 1 & np.iinfo(y.dtype).max).view(f"f{y.itemsize}")
    y = np.floor(y * step + offset + 0.5) if form and kind != 4 else y * step + offset
    return (y / 10.0**digits if kind == 1 else y * float(f"1e-{digits}")).astype("f4" if cast else "f8")


def quantise(b, n, dtype, eps, step=0.0):  # numbers of levels, or of cells of the values' own grid
    if not (head := b.read(1)[0]) >> 6:
        return integers(b, n) * (2 * eps * (1 - 2.0 ** -(head & 31)) if head & 31 else step)
    width, phase, points = float(np.frombuffer(b.read(4), "<f4")[0]), b.read(1)[0] / 256, varint(b)
    return (integers(b, n) * float(points) + ((points - 1) / 2 - points // 2 + phase)) * width


def rle(b, _, dtype):  # runs: of which value, and how long
    _, runs, n_known = b.read(1), varint(b), varint(b)
    lengths, known = part(b, runs) + 1, np.frombuffer(b.read(n_known * dtype.itemsize), dtype)
    return np.repeat(known[np.cumsum([0, *integers(b, runs - 1) + 1]) % n_known], lengths)


def ticks(b, n, span):  # from the first, beside a line, or by how much they rise
    how, start, tick = b.read(1)[0], span[0] + signed(b), signed(b)
    ((step, offset),) = np.frombuffer(b.read(12), "<f8,<f4").tolist() if how == 1 else [(0.0, 0.0)]
    k = np.cumsum([0, *integers(b, n - 1)]) if how == 2 else integers(b, n)
    return start + tick * (np.floor(np.arange(n) * step + (offset + 0.5)).astype("i8") + k)


# fmt: off
CODECS = {
    "=regular": lambda b, n, span: span[0] + (span[1] - span[0]) // max(1, n - 1) * np.arange(n), "=ticks": ticks,
    "const": lambda b, n, dtype: np.frombuffer(b.read() * n, dtype), "rle": rle, "quantise": quantise,
    "raw": lambda b, n, dtype: np.frombuffer(b.read(), dtype), "origin": lambda b, n, dtype: origin(b, n),
    "pco": lambda b, n, dtype: simple_decompress(b.read())}
# fmt: on


def decoded(codec, b, n, of):  # values of a dtype, or times of a span; settings are in front of a body
    name, *keys = codec.partition(" ")[0].replace("~", "@").replace(",", "@").split("@")
    if name not in CODECS:
        raise NotImplementedError(f"what {codec} wrote is not read here")
    floats = np.frombuffer(b.read((4 if "~" in codec else 8) * len(keys)), "<f4" if "~" in codec else "<f8")
    return CODECS[name](b, n, of, *floats.tolist())


def files(store):  # that the newest manifests name: of 30 days, and of days that came since
    new = {f.parent: json.loads(f.read_text())["data"] for f in sorted(Path(store).glob("manifests/*/*/*"))}
    taken = {int(day): one["number"] for m in new.values() for day, one in m.get("days", {}).items()}
    live = [m for m in new.values() if m["number"] > taken.get(m.get("day"), 0)]
    return [f"{store}/{f['name']}" for m in live for f in m["files"]]


USUAL = {"times_back": 0, "scale": 1.0, "offset": 0.0, "dictionary": None}  # of columns that a file has not


def rows_of(file, path):  # with the payload that has the row's times: its own, or that of a row before it
    table = pq.read_table(file)
    same = USUAL | json.loads(table.schema.metadata.get(b"headrace.same", b"{}"))  # what all its rows say
    for i in np.flatnonzero(table["path"].to_numpy() == path).tolist():
        row = same | table.slice(i, 1).to_pylist()[0]
        yield row | {"leader": table["payload"][i - (row["times_back"] or 0)].as_py()}


def parts(payload):  # times, values, and a codec with the quality
    n_times, n_values = varint(b := BytesIO(payload[4:])), varint(b)
    return BytesIO(b.read(n_times)), BytesIO(b.read(n_values or -1)), *b.read().partition(b"\0")[::2]


def meaning(row, numbers):  # what raw numbers stand for
    if row["dictionary"] is not None:
        return [row["dictionary"][i] for i in numbers.tolist()]
    scale, offset = (Fraction(repr(row[name])) for name in ("scale", "offset"))
    return [x if (scale, offset) == (1, 0) else float(Fraction(x) * scale + offset) for x in numbers.tolist()]


def read_sensor(store, path):
    # {ts_ns: (value, quality)}: of versions of a sample that of the row with the highest seq counts
    found, rows = {}, (row for file in files(store) for row in rows_of(file, path))
    for row in sorted(rows, key=lambda row: row["seq"]):
        n, kind, size = row["n_frames"], row["dtype"][0], int(row["dtype"][1:]) // 8
        (times, *_), (_, values, codec, marks) = parts(row["leader"]), parts(row["payload"])
        ts_ns = decoded(row["time_codec"], times, n, (row["t_min"].value, row["t_max"].value))
        numbers = decoded(row["value_codec"], values, n, dtype := np.dtype(f"{kind}{size}")).astype(dtype)
        quality = decoded(codec.decode() or "const", BytesIO(marks or b"\0"), n, np.dtype("u1"))
        found |= zip(ts_ns.tolist(), zip(meaning(row, numbers), quality.tolist(), strict=True), strict=True)
    return dict(sorted(found.items()))


def read_means(store):
    # {path: (count, mean)} from headers alone, where no day has two versions of a sample
    headers = pq.read_table(files(store), columns=["path", "count", "sum"]).group_by("path")
    rows = headers.aggregate([("count", "sum"), ("sum", "sum")]).to_pylist()
    return {r["path"]: (n, r["sum_sum"] / n) for r in rows if (n := r["count_sum"]) and r["sum_sum"]}


if __name__ == "__main__" and len(sys.argv) == 3:
    for ts_ns, (value, quality) in read_sensor(*sys.argv[1:]).items():
        print(np.datetime64(ts_ns, "ns"), value, quality)
    print("count and mean by headers:", read_means(sys.argv[1]).get(sys.argv[2]))
