// Numbers and times as people read them, and what a curve amounts to.

export function short(value, whole = true) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  if (whole && Number.isInteger(value)) return value.toLocaleString("en");
  const digits = size >= 1000 ? 1 : size >= 100 ? 1 : size >= 1 ? 2 : 4;
  return value.toLocaleString("en", { minimumFractionDigits: digits > 2 ? 0 : digits, maximumFractionDigits: digits });
}

export function worded(value, labels, whole = true) {
  if (value === null || value === undefined) return "–";
  return labels.length && Number.isInteger(value) && labels[value] !== undefined ? labels[value] : short(value, whole);
}

export function span(ms) {
  for (const [unit, size] of [["d", 86400e3], ["h", 3600e3], ["min", 60e3], ["s", 1e3]]) {
    if (ms >= size) return `${+(ms / size).toFixed(ms / size < 10 ? 1 : 0)} ${unit}`;
  }
  return `${Math.round(ms)} ms`;
}

// Times of the plant, wherever the browser is.
export class PlantTime {
  constructor(zone) {
    const form = (more) => new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...more });
    this.parts = form({ year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" });
    this.dayName = form({ day: "numeric", month: "short" });
  }

  of(ms) {
    const found = Object.fromEntries(this.parts.formatToParts(ms).map((one) => [one.type, one.value]));
    return { ...found, ms: String(Math.floor(((ms % 1000) + 1000) % 1000)).padStart(3, "0") };
  }

  offset(ms) {
    const t = this.of(ms);
    return Date.UTC(t.year, t.month - 1, t.day, t.hour, t.minute, t.second) - Math.floor(ms / 1000) * 1000;
  }

  full(ms, withMs) {
    const t = this.of(ms);
    return `${t.year}-${t.month}-${t.day} ${t.hour}:${t.minute}:${t.second}${withMs ? "." + t.ms : ""}`;
  }

  // Round times within [start, end], about one in `apart` pixels, and their texts.
  ticks(start, end, width, apart = 92) {
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3,
      3600e3, 7200e3, 10800e3, 21600e3, 43200e3, 86400e3, 2 * 86400e3, 7 * 86400e3, 14 * 86400e3, 28 * 86400e3, 91 * 86400e3, 365 * 86400e3];
    const least = ((end - start) * apart) / Math.max(width, apart);
    const step = steps.find((one) => one >= least) ?? steps[steps.length - 1];
    const shift = this.offset(start);
    const out = [];
    for (let at = Math.ceil((start + shift) / step) * step - shift; at <= end && out.length < 60; at += step) out.push(at);
    return { step, values: out };
  }

  tick(ms, step) {
    const t = this.of(ms);
    if (step >= 86400e3 || (t.hour === "00" && t.minute === "00" && t.second === "00" && step >= 1e3)) return this.dayName.format(ms);
    if (step < 1e3) return `${t.minute}:${t.second}.${t.ms}`;
    return step < 60e3 ? `${t.hour}:${t.minute}:${t.second}` : `${t.hour}:${t.minute}`;
  }
}

// Number of the last point at or before a time; -1 where there is none.
export function before(times, t) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= t) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

export function nearest(times, t) {
  const i = before(times, t);
  if (i < 0) return times.length ? 0 : -1;
  return i + 1 < times.length && times[i + 1] - t < t - times[i] ? i + 1 : i;
}

// Least, mean, most and newest of a curve.
export function summary(curve) {
  const bad = new Set(curve.q.filter(([, kind]) => kind !== "uncertain").map(([i]) => i));
  let least = null, most = null, total = 0, n = 0, last = -1;
  for (let i = 0; i < curve.v.length; i++) {
    const v = curve.v[i];
    if (v === null || bad.has(i)) continue;
    const low = curve.lo?.[i] ?? v, high = curve.hi?.[i] ?? v, weight = curve.n?.[i] ?? 1;
    if (least === null || low < least) least = low;
    if (most === null || high > most) most = high;
    total += v * weight;
    n += weight;
    last = i;
  }
  return { least, most, mean: n ? total / n : null, last: last < 0 ? null : curve.v[last], at: last < 0 ? null : curve.t[last] };
}

// A held curve with what came newly from `since` on; what left the span on the left is let go.
export function joined(held, fresh, since, start) {
  const out = { ...fresh, whole: held.whole && fresh.whole };
  const keep = before(held.t, since - 1e-6) + 1;
  const first = Math.max(0, before(held.t, start));
  for (const name of ["t", "v", "lo", "hi", "n"]) {
    if (fresh[name]) out[name] = [...(held[name] ?? []).slice(first, keep), ...fresh[name]];
  }
  const moved = held.q.filter(([i]) => i >= first && i < keep).map(([i, ...rest]) => [i - first, ...rest]);
  out.q = [...moved, ...fresh.q.map(([i, ...rest]) => [i + Math.max(0, keep - first), ...rest])];
  return out;
}

// Times from the server are counted from a base; here they are whole.
export function unpacked(series, base) {
  const isWhole = (v) => v === null || Number.isInteger(v);
  return series.map((one) => ({ ...one, t: one.t.map((t) => t + base), whole: one.v.every(isWhole) }));
}
