"""A sensor's samples out of a store's warm and cold tier without Headrace: plain Python, NumPy, pyarrow and pcodec.

    python examples/read_store.py STORE plant/oven/temp

docs/format.md says what is read here, in 200 lines of code: values const, raw, rle, pco and origin; times regular and
ticks; integers by every coder. Anything else is refused by name. Aggregates need no codec: headers are columns, which `read_means` reads, or DuckDB:

    SELECT path, sum(sum) / sum(count) AS mean FROM 'STORE/segments/warm/*/*.parquet' GROUP BY path
"""

import bisect
import json
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pcodec import standalone

I8 = np.dtype("i8")
np.seterr(over="ignore", invalid="ignore")  # integers are modulo 2**64


def varint(b, at):  # the number at a place, and where it ends
    end = next(i for i in range(at, at + 10) if b[i] < 128) + 1
    return sum((b[i] & 127) << 7 * (i - at) for i in range(at, end)) & 2**64 - 1, end


def signed(b, at):
    z, at = varint(b, at)
    return i64(z >> 1 ^ -(z & 1)), at


def counted(b, at):  # a number, and a part behind its size: both, and what is behind them
    count, at = varint(b, at)
    size, at = varint(b, at)
    return count, b[at : at + size], b[at + size :]


def i64(number):
    return np.int64((int(number) + 2**63) % 2**64 - 2**63)


def summed(r, order):  # residuals of an order: less the first number, the one before, the change before
    if order == 0:
        r[1:] += r[0]
    elif order == 2 and len(r) > 1:
        r[1:] = np.cumsum(r[1:])
    return np.cumsum(r) if order in (1, 2) else r


def unzigzag(numbers):
    return np.array([int(i64(z >> 1 ^ -(z & 1))) for z in numbers], I8)


def adaptive(b, n):  # Rice codes whose parameter follows a running mean
    mean, bit, zs = (16 << (b[0] >> 2)) >> 1, 8, []
    for i in range(n):
        ahead = int.from_bytes(b[bit >> 3 : (bit >> 3) + 20], "little") >> (bit & 7)
        high, k = (ahead & -ahead).bit_length() - 1, max((mean * 11 >> 8).bit_length() - 1, 0)
        width = k if high < 24 else 64
        zs.append((high << k if high < 24 else 0) | ahead >> high + 1 & 2**width - 1)
        bit, mean = bit + high + 1 + width, mean - (mean >> 4) + min(zs[-1], 2**56) if i else mean
    return summed(unzigzag(zs), b[0] & 3)


def frequencies(counts, new, k):  # where each of 40 buckets starts in 4,096, which is where the last one ends
    for i in range(40):
        counts[i] += 8 * new[i + 1] + (k > 0) * (new[i] + new[i + 2])
    total, new[:] = sum(counts), [0] * 42
    factor = -((-4056 << 32) // total)
    starts = [i + (sum(counts[:i]) * factor >> 32) for i in range(40)]
    if total > 8000:
        counts[:] = [c - (c >> 1) for c in counts]
    return [*starts, 4096]


def model(b, n):  # how large numbers are by rANS over a model that learns; their low bits from the end
    log_mean, order, low, bit, due, zs = b[0] - 8 >> 2, b[0] & 3, int.from_bytes(b[1:], "big"), 0, 8, []
    mean, pos, new = 8 << log_mean, 5 if n < 512 else 9, [0] * 42
    states, m = [int.from_bytes(b[at : at + 4], "little") for at in (1, pos - 4)], 3 << min(log_mean + 4, 8)
    edges = [*range(16), *((4 + f) << (o - 2) for o in range(4, 10) for f in range(4))]
    above = [(1 << 64) * m**e // (m + 32) ** e for e in edges]
    counts = [*(1 + (150 * (above[i] - above[i + 1]) >> 64) for i in range(39)), 1]
    starts = frequencies(counts, new, 0)
    for i in range(n):
        turn = i & 1 if n >= 512 else 0
        k, slot = max((mean + 4).bit_length() - 8, 0), states[turn] & 4095
        at = bisect.bisect(starts, slot) - 1
        states[turn] = (starts[at + 1] - starts[at]) * (states[turn] >> 12) + slot - starts[at]
        if states[turn] < 65536:
            states[turn], pos = states[turn] << 16 | int.from_bytes(b[pos : pos + 2], "big"), pos + 2
        new[at + 1] += 1
        more, top = (0, at) if at < 16 else ((at >> 2) - 2, 4 | at & 3)
        mean = min(mean - (mean >> 4) + (min(2 * top + 1 << more, 384) << k >> 1), 1 << 60) if i else mean
        width = k + more
        if at == 39:
            width, top, bit = (low >> bit & 63) + 1, 0, bit + 6
        zs.append(top << width | low >> bit & 2**width - 1)
        bit += width
        if i == due:
            starts, due = frequencies(counts, new, max((mean + 4).bit_length() - 8, 0)), due + min(due, 128)
    return summed(unzigzag(zs), order)


def centred(b, n):  # linear prediction around a centre
    order, shift, at = b[0], b[1], 2 + 2 * b[0]
    c, (centre, at) = np.frombuffer(b[2:at], "<i2").astype(I8)[::-1], signed(b, at)
    y = integers(b[at:], n)
    y[:order] = np.cumsum(y[:order])
    for i in range(order, n):
        y[i] += int(c @ y[i - order : i]) >> shift
    return y + centre


def steps(b, n):
    step, at = varint(b, 0)
    rest, at = varint(b, at)
    return i64(rest) + i64(step) * integers(b[at:], n)


def sparse(b, n):  # they rise by the same but at some places
    first, at = signed(b, 0)
    usual, at = signed(b, at)
    count, places, others = counted(b, at)
    rise = np.append(first, np.full(n - 1, usual))
    rise[np.cumsum(integers(places, count) + 1)] += integers(others, count)
    return np.cumsum(rise)


def palette(b, n):  # few different numbers
    count, numbers, which = counted(b, 0)
    return integers(numbers, count)[[2 * i if i >= 0 else ~(2 * i) for i in integers(which, n)]]


def integers(b, n):
    if b[0] > 7:
        return model(b, n)
    known = [palette, lambda b, n: standalone.simple_decompress(b), adaptive, centred, steps, sparse]
    if b[0] < 6:
        return known[b[0]](b[1:], n)
    centre, at = signed(b, 1)
    return centre + (integers(b[at:], n) if b[0] == 6 else np.zeros(n, I8))


def ordered(bits, width):  # floats whose neighbours have neighbouring bits
    return (bits ^ bits >> 8 * width - 1 & np.iinfo(f"i{width}").max).view(f"f{width}")


def origin(b, n):  # floats by the integers behind them
    if not b[0] & 0x80:
        return integers(b[1:], n)
    kind, cast, at = b[1] & 7, b[1] >> 3 & 3, 3 if b[1] & 7 in (1, 2) else 2
    digits, has_step = b[2], b[1] & 0x20 or kind == 4
    if b[1] & 0x80:  # decimals in one byte
        kind, cast, at, digits, has_step = 1 + (b[1] >> 6 & 1), b[1] >> 4 & 3, 2, b[1] & 15, False
    if b[0] & 0x70 or cast > 1:
        raise NotImplementedError("an origin with patches or texts is not read here")
    form = ("<dd" if b[1] & 0x40 else "<ff") if has_step else ""
    step, offset = struct.unpack_from(form, b, at) or (1.0, 0.0)
    y = integers(b[at + struct.calcsize(form) :], n)
    if kind in (0, 3):
        return ordered(y, 8) if kind == 0 else ordered(y.astype("i4"), 4).astype("f8")
    if kind == 4:
        return y * step + offset
    y = np.floor(y * step + offset + 0.5) if has_step else y.astype("f8")
    out = y / 10.0**digits if kind == 1 else y * float(f"1e-{digits}")
    return out.astype("f4").astype("f8") if cast else out


def rle(b, dtype):  # runs: of which value, and how long
    runs, at = varint(b, 1)
    n_known, lengths, rest = counted(b, at)
    known = np.frombuffer(rest, dtype, n_known)
    others = integers(rest[known.nbytes :], runs - 1) + 1 if runs > 1 else []
    number = np.cumsum(np.append(0, others)).astype(int) % n_known
    return np.repeat(known[number], integers(lengths, runs) + 1)


def values(b, n, dtype, name):
    if name in ("const", "raw"):
        return np.frombuffer(b * (n if name == "const" else 1), dtype)
    if name == "rle":
        return rle(b, dtype)
    if not name.startswith("pco") and name != "origin":
        raise NotImplementedError(f"{dtype} values by {name} are not read here")
    return standalone.simple_decompress(b) if name.startswith("pco") else origin(b, n).astype(dtype)


def times(b, n, name, first, last):
    if name == "=regular":
        return first + (last - first) // max(1, n - 1) * np.arange(n)
    if name != "=ticks":
        raise NotImplementedError(f"times by {name} are not read here")
    start, at = signed(b, 1)
    tick, at = signed(b, at)
    step, offset = struct.unpack_from("<df", b, at) if b[0] else (0.0, 0.0)
    line = np.floor(np.arange(n) * step + (offset + 0.5)).astype(I8)
    return first + start + tick * (integers(b[at + 12 * b[0] :], n) + line)


def files(store):  # that the newest manifests name: of 30 days, and of days that came since
    folders = [p for kind in ("cold", "warm") for p in Path(store, "manifests", kind).glob("*")]
    newest = [json.loads(max(folder.iterdir()).read_text())["data"] for folder in folders]
    taken = {int(day): one["number"] for m in newest for day, one in m.get("days", {}).items()}
    newest = [m for m in newest if "bucket" in m or m["number"] > taken.get(m["day"], 0)]
    return [f"{store}/{f['name']}" for m in newest for f in m["files"]]


USUAL = {"times_back": 0, "scale": 1.0, "offset": 0.0, "dictionary": None}  # of columns that a file has not


def rows_of(file, path):  # with the payload that has the row's times: its own, or that of a row before it
    same = json.loads(file.metadata.metadata.get(b"headrace.same", b"{}"))  # what all its rows say
    for g in range(file.num_row_groups):
        group = file.read_row_group(g)
        for i in np.flatnonzero(group["path"].to_numpy() == path).tolist():
            row = USUAL | same | group.slice(i, 1).to_pylist()[0]
            yield row | {"leader": group["payload"][i - (row["times_back"] or 0)].as_py()}


def parts(payload):  # times, bytes of the values, and the values with the quality behind them
    n_times, at = varint(payload, 4)
    n_values, at = varint(payload, at)
    times, rest = payload[at : at + n_times], payload[at + n_times :]
    return times, n_values or len(rest), rest


def read_sensor(store, path):
    """{ts_ns: (value, quality)}; of two versions of a sample the one of the row with the higher seq counts."""
    found, all_rows = {}, (row for f in files(store) for row in rows_of(pq.ParquetFile(f), path))
    for row in sorted(all_rows, key=lambda row: row["seq"]):
        n, kind = row["n_frames"], row["dtype"]
        dtype = np.dtype(f"{kind[0]}{int(kind[1:]) // 8}")
        span = int(row["t_min"].value), int(row["t_max"].value)
        ts_ns = times(parts(row["leader"])[0], n, row["time_codec"], *span)
        _, n_values, rest = parts(row["payload"])
        name, _, marks = rest[n_values:].partition(b"\0")
        quality = values(marks, n, np.dtype("u1"), name.decode()) if name else np.zeros(n, "u1")
        out = values(rest[:n_values], n, dtype, row["value_codec"]).tolist()
        if row["dictionary"] is not None:
            out = [row["dictionary"][i] for i in out]
        elif (row["scale"], row["offset"]) != (1.0, 0.0):
            scale, offset = Fraction(repr(row["scale"])), Fraction(repr(row["offset"]))
            out = [float(Fraction(x) * scale + offset) for x in out]
        found |= zip(ts_ns.tolist(), zip(out, quality.tolist(), strict=True), strict=True)
    return dict(sorted(found.items()))


def read_means(store):
    """{path: (count, mean)} from headers alone, where no day has two versions of a sample."""
    tables = [pq.read_table(f, columns=["path", "count", "sum"]) for f in files(store)]
    rows = pa.concat_tables(tables).group_by("path").aggregate([("count", "sum"), ("sum", "sum")]).to_pylist()
    return {r["path"]: (n, r["sum_sum"] / n) for r in rows if (n := r["count_sum"]) and r["sum_sum"]}


if __name__ == "__main__" and len(sys.argv) == 3:
    for ts_ns, (value, quality) in read_sensor(*sys.argv[1:]).items():
        print(np.datetime64(ts_ns, "ns"), value, quality)
    print("count and mean by headers:", read_means(sys.argv[1]).get(sys.argv[2]))
