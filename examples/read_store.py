"""A sensor's samples out of a store's warm tier without Headrace: plain Python, NumPy, pyarrow and pcodec.

    python examples/read_store.py STORE plant/oven/temp

docs/format.md says what is read here, in 150 lines of code: values const, raw, pco, rice_delta of integers and
origin; times regular, delta_of_delta and ticks; the integers in them as series, pco, adaptive and sparse. Anything
else is refused by name. Aggregates need no codec: headers are columns, which `read_means` reads, or DuckDB:

    SELECT path, sum(sum) / sum(count) AS mean FROM 'STORE/segments/warm/*/*.parquet' GROUP BY path
"""

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


def signed_bytes(b):
    return int.from_bytes(b, "little", signed=True)


def i64(number):
    return np.int64((int(number) + 2**63) % 2**64 - 2**63)


def rice(b, m):  # m residuals: k, then low parts, high parts in unary, and what escaped
    k, bits = b[0], np.unpackbits(np.frombuffer(b[1:], "u1"), bitorder="little")
    ones = np.flatnonzero(bits[m * k :])[:m]
    high, at = np.diff(ones, prepend=-1) - 1, 1 + (m * k + int(ones[-1]) + 8) // 8
    low = bits[: m * k].reshape(m, k).astype("u8") @ (np.uint64(1) << np.arange(k, dtype="u8"))
    z = high.astype("u8") << np.uint64(k) | low
    for i in np.flatnonzero(high == 20):
        z[i], at = varint(b, at)
    return (z >> np.uint64(1)).view(I8) ^ -(z & np.uint64(1)).view(I8)


def column(b, n, width):
    tag, mode, at = b[0], b[0] & 7, 2 + (b[0] >> 4 & 7)
    if tag == 0:
        return np.frombuffer(b[1:], f"i{width}").astype(I8)
    base = i64(signed_bytes(b[1:at]))
    step, at = varint(b, at) if tag & 8 else (1, at)
    bias, at = signed(b, at) if tag & 128 else (np.int64(0), at)
    y = np.arange(n) * (bias if mode == 2 else 0)
    if mode == 3:
        (count, at), place = varint(b, at), 0
        for _ in range(count):
            distance, at = varint(b, at)
            change, at = signed(b, at)
            place += distance
            y[place:] += change
    elif mode > 3:
        r = rice(b[at:], n - 1)
        y[1:] = r + bias if mode == 4 else np.cumsum((r if mode == 5 else np.cumsum(r)) + bias)
    return base + i64(step) * y


def series(b, n, width, piece):  # their lengths, then columns of up to `piece` numbers
    at, lengths, out = 0, [], [np.empty(0, I8)]
    while len(lengths) * piece < n:
        length, at = varint(b, at)
        lengths.append(length)
    for i, length in enumerate(lengths):
        out.append(column(b[at : (at := at + length)], min(piece, n - i * piece), width))
    return np.concatenate(out)


def adaptive(b, n):  # Rice codes whose parameter follows a running mean
    order, mean, bit, x = b[0] & 3, (16 << (b[0] >> 2)) >> 1, 8, []
    for i in range(n):
        ahead = int.from_bytes(b[bit >> 3 : (bit >> 3) + 20], "little") >> (bit & 7)
        high, k = (ahead & -ahead).bit_length() - 1, max((mean * 11 >> 8).bit_length() - 1, 0)
        width = k if high < 24 else 64
        z = (high << k if high < 24 else 0) | ahead >> high + 1 & 2**width - 1
        bit, mean = bit + high + 1 + width, mean - (mean >> 4) + min(z, 2**56) if i else mean
        expected = 0 if i == 0 or order == 3 else x[0] if order == 0 else x[-1]
        x.append(int(i64(expected + (x[-1] - x[-2] if order == 2 and i > 1 else 0) + (z >> 1 ^ -(z & 1)))))
    return np.array(x, I8)


def integers(b, n):
    if b[0] == 5:  # they rise by the same but at some places
        first, at = signed(b, 1)
        usual, at = signed(b, at)
        count, at = varint(b, at)
        size, at = varint(b, at)
        rise = np.append(first, np.full(n - 1, usual))
        rise[np.cumsum(integers(b[at : at + size], count) + 1)] += integers(b[at + size :], count)
        return np.cumsum(rise)
    if b[0] > 2:
        raise NotImplementedError(f"integers by coder {b[0]} are not read here")
    known = [lambda b, n: series(b, n, 8, 65536), lambda b, n: standalone.simple_decompress(b), adaptive]
    return known[b[0]](b[1:], n)


def ordered(bits, width):  # floats whose neighbours have neighbouring bits
    return (bits ^ bits >> 8 * width - 1 & np.iinfo(f"i{width}").max).view(f"f{width}")


def origin(b, n):  # floats by the integers behind them
    head = b[1]
    kind, cast, digits, at = head & 7, head >> 3 & 3, b[2], 3 if head & 7 in (1, 2) else 2
    if head & 0x80:  # a decimal in one byte
        kind, cast, digits, at = 2 if head & 0x40 else 1, head >> 4 & 3, head & 15, 2
    has_step = not head & 0x80 and (head & 0x20 or kind == 4)
    if b[0] & 0x70 or cast == 2:
        raise NotImplementedError("an origin with patches or texts is not read here")
    form = ("<dd" if head & 0x40 else "<ff") if has_step else ""
    step, offset = struct.unpack_from(form, b, at) or (1.0, 0.0)
    y = integers(b[at + struct.calcsize(form) :], n)
    if kind in (0, 3):
        return ordered(y, 8) if kind == 0 else ordered(y.astype("i4"), 4).astype("f8")
    if kind == 4:
        return y * step + offset
    y = np.floor(y * step + offset + 0.5) if has_step else y.astype("f8")
    out = y / 10.0**digits if kind == 1 else y * float(f"1e-{digits}")
    return out.astype("f4").astype("f8") if cast else out


def values(b, n, dtype, text):
    name, settings = text.partition(" ")[0], json.loads(text.partition(" ")[2] or "{}")
    if name in ("const", "raw"):
        return np.frombuffer(b * (n if name == "const" else 1), dtype)
    if name == "rice_delta" and dtype.kind != "f":
        return series(b[1:], n, dtype.itemsize, settings["piece"]).astype(dtype)
    if name not in ("pco", "origin"):
        raise NotImplementedError(f"{dtype} values by {name} are not read here")
    return standalone.simple_decompress(b) if name == "pco" else origin(b, n).astype(dtype)


def times(b, n, text):
    if text == "=regular":
        return signed_bytes(b[:8]) + signed_bytes(b[8:]) * np.arange(n)
    if text.startswith("=delta_of_delta"):
        return series(b, n, 8, json.loads(text.partition(" ")[2])["piece"])
    if text != "=ticks" or b[0]:
        raise NotImplementedError(f"times by {text} are not read here")
    tick, at = signed(b, 9)
    return struct.unpack_from("<q", b, 1)[0] + tick * integers(b[at:], n)


def files(store):  # those that the newest manifest of each day names
    manifests = [max(day.iterdir()) for day in sorted(Path(store, "manifests/warm").iterdir())]
    return [f"{store}/{f['name']}" for m in manifests for f in json.loads(m.read_text())["data"]["files"]]


def rows_of(file, path):  # with the payload that has the row's times: its own, or that of a row before it
    for g in range(file.num_row_groups):
        group = file.read_row_group(g)
        for i in np.flatnonzero(group["path"].to_numpy() == path).tolist():
            row = group.slice(i, 1).to_pylist()[0]
            yield row | {"leader": group["payload"][i - (row.get("times_back") or 0)].as_py()}


def parts(payload):  # times, bytes of the values, and the values with the quality behind them
    n_times, at = varint(payload, 4)
    n_values, at = varint(payload, at)
    rest = payload[at + n_times :]
    return payload[at : at + n_times], n_values or len(rest), rest


def read_sensor(store, path):
    """{ts_ns: (value, quality)}; of two versions of a sample the one of the row with the higher seq counts."""
    found, all_rows = {}, (row for f in files(store) for row in rows_of(pq.ParquetFile(f), path))
    for row in sorted(all_rows, key=lambda row: row["seq"]):
        n, kind = row["n_frames"], row["dtype"]
        dtype = np.dtype(f"{kind[0]}{int(kind[1:]) // 8}")
        ts_ns = times(parts(row["leader"])[0], n, row["time_codec"])
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
    table = pa.concat_tables([pq.read_table(f, columns=["path", "count", "sum"]) for f in files(store)])
    rows = table.group_by("path").aggregate([("count", "sum"), ("sum", "sum")]).to_pylist()
    return {
        row["path"]: (n, row["sum_sum"] / n) for row in rows if (n := row["count_sum"]) and row["sum_sum"]
    }


if __name__ == "__main__" and len(sys.argv) == 3:
    for ts_ns, (value, quality) in read_sensor(*sys.argv[1:]).items():
        print(np.datetime64(ts_ns, "ns"), value, quality)
    print("count and mean by headers:", read_means(sys.argv[1]).get(sys.argv[2]))
