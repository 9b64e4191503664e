// From curves to what ECharts draws: one grid below the other, one a row, with one time for all.

import { faint } from "./colors.js";
import { worded } from "./numbers.js";

const LEFT = 62, RIGHT = 16, HEAD = 25, FOOT = 24;
export const ROW_MIN = 104, STATE_ROW = 92;

export function rowHeights(rows, available) {
  const states = rows.filter((row) => row.step && row.labels.length).length;
  const analog = rows.length - states;
  const left = available - FOOT - states * STATE_ROW;
  const each = analog ? Math.max(ROW_MIN, Math.min(left / analog, 420)) : 0;
  const state = analog ? STATE_ROW : Math.max(STATE_ROW, Math.min(180, left / Math.max(1, states) + STATE_ROW));
  return rows.map((row) => (row.step && row.labels.length ? state : each));
}

export function chartOption({ trend, paint, time, width, heights }) {
  const ticks = time.ticks(trend.start, trend.end, width - LEFT - RIGHT);
  const grids = [], xAxes = [], yAxes = [], titles = [], series = [];
  let top = 0;
  trend.rows.forEach((row, i) => {
    const isLast = i === trend.rows.length - 1;
    grids.push({ left: LEFT, right: RIGHT, top: top + HEAD, height: heights[i] - HEAD - 4 });
    const isEmpty = row.sensors.every((number) => !trend.series[number].t.length);
    titles.push({ text: isEmpty ? `${row.title} · no samples in this time` : row.title, left: 10, top: top + 2, textStyle: { fontSize: 11, fontWeight: 500, color: paint.dim } });
    xAxes.push(timeAxis(i, trend, ticks, time, paint, isLast));
    yAxes.push(valueAxis(i, row, paint));
    for (const number of row.sensors) series.push(...curveSeries(trend, number, i, paint, width - LEFT - RIGHT));
    top += heights[i];
  });
  return { animation: false, title: titles, grid: grids, xAxis: xAxes, yAxis: yAxes, series, axisPointer: { link: [{ xAxisIndex: "all" }] } };
}

function timeAxis(i, trend, ticks, time, paint, isLast) {
  return {
    type: "time", gridIndex: i, min: trend.start, max: trend.end,
    axisLine: { show: isLast, lineStyle: { color: paint.line } },
    axisTick: { show: isLast, customValues: ticks.values, lineStyle: { color: paint.line } },
    axisLabel: { show: isLast, customValues: ticks.values, color: paint.dim, fontSize: 11, hideOverlap: true, formatter: (ms) => time.tick(ms, ticks.step) },
    splitLine: { show: false },
    axisPointer: { show: true, lineStyle: { color: paint.dim, width: 1, type: "solid", opacity: 0.6 }, label: { show: false } },
  };
}

function valueAxis(i, row, paint) {
  const common = { gridIndex: i, axisLine: { show: false }, axisTick: { show: false }, splitLine: { lineStyle: { color: paint.grid } } };
  const label = { color: paint.dim, fontSize: 11, width: LEFT - 14, overflow: "truncate" };
  if (row.step && row.labels.length) {
    return { ...common, type: "value", min: -0.15, max: row.labels.length - 0.85, interval: 1,
      axisLabel: { ...label, customValues: row.labels.map((_, k) => k), formatter: (v) => row.labels[v] ?? "" }, splitLine: { show: false } };
  }
  return { ...common, type: "value", scale: true, splitNumber: 3,
    axisLabel: { ...label, formatter: (v) => compact(v) } };
}

function compact(v) {
  const size = Math.abs(v);
  for (const [least, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= least) return `${+(v / (unit === "k" ? 1e3 : least)).toPrecision(4)}${unit}`;
  }
  return `${+v.toPrecision(6)}`;
}

function curveSeries(trend, number, grid, paint, width) {
  const curve = trend.series[number];
  const color = paint.curves[curve.color % paint.curves.length];
  const axes = { xAxisIndex: grid, yAxisIndex: grid };
  const out = [];
  const bad = new Set(curve.q.filter(([, kind]) => kind !== "uncertain").map(([i]) => i));
  const quiet = { silent: true, tooltip: { show: false }, emphasis: { disabled: true }, symbol: "none", ...axes };
  if (curve.lo && curve.hi.some((h, i) => h !== null && h > curve.lo[i])) {
    const stack = `band${number}`;
    const step = curve.step ? "end" : false;
    const hidden = { ...quiet, type: "line", stack, stackStrategy: "all", lineStyle: { opacity: 0 }, step };
    out.push({ ...hidden, data: curve.t.map((t, i) => [t, curve.lo[i]]) });
    out.push({ ...hidden, areaStyle: { color: faint(color, 0.16) }, data: curve.t.map((t, i) => [t, curve.hi[i] === null ? null : curve.hi[i] - curve.lo[i]]) });
  }
  const data = curve.t.map((t, i) => [t, bad.has(i) ? null : curve.v[i]]);
  // Points are marked where they stand so far apart that it helps.
  const covered = data.length ? (width * (curve.t[curve.t.length - 1] - curve.t[0])) / (trend.end - trend.start) : 0;
  const isState = curve.step && curve.labels.length > 0;
  if (curve.step && data.length) data.push([Math.max(Math.min(trend.end, trend.now), data[data.length - 1][0]), data[data.length - 1][1]]);
  out.push({
    ...axes, type: "line", name: curve.path, data, step: curve.step ? "end" : false, connectNulls: false,
    showSymbol: !curve.step && (data.length === 1 || covered / data.length > 9), symbol: "circle", symbolSize: 4, lineStyle: { width: 1.5, color }, itemStyle: { color },
    areaStyle: isState ? { color: faint(color, 0.12), origin: "start" } : undefined, emphasis: { disabled: true }, z: 3,
  });
  for (const [kind, mark, tone] of [["uncertain", "emptyCircle", paint.warn], ["bad", "path://M0 0 L10 10 M10 0 L0 10", paint.bad]]) {
    const points = curve.q.filter(([i, k]) => k === kind && curve.v[i] !== null).map(([i]) => [curve.t[i], curve.v[i]]);
    if (points.length) out.push({ ...quiet, type: "scatter", symbol: mark, symbolSize: 7, itemStyle: { color: kind === "bad" ? "transparent" : tone, borderColor: tone, borderWidth: 1.5 }, data: points, z: 5 });
  }
  return out;
}

// What the pointer is over, in words; HTML, every text of the plant's escaped.
export function tooltipHtml({ trend, at, paint, time, find }) {
  const safe = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const rows = trend.series.map((curve) => {
    const i = find(curve, at);
    if (i < 0) return "";
    const quality = curve.q.find(([place]) => place === i);
    const band = curve.lo && curve.n?.[i] > 1 && !curve.labels.length ? `<span class="hr-dim">${worded(curve.lo[i], [], curve.whole)} … ${worded(curve.hi[i], [], curve.whole)}</span>` : "";
    const mark = quality ? `<em class="${quality[1] === "uncertain" ? "warn" : "bad"}">${safe(quality[2])}</em>` : "";
    const name = curve.path.split("/").slice(-2).map(safe).join("/");
    return `<tr><td><i style="background:${paint.curves[curve.color % paint.curves.length]}"></i>${name}</td><td><b>${safe(worded(curve.v[i], curve.labels, curve.whole))}</b> ${safe(curve.unit)}</td><td>${band}${mark}</td></tr>`;
  });
  return `<div class="hr-tip"><time>${time.full(at, trend.every_ms === null || trend.every_ms < 1000)}</time><table>${rows.join("")}</table></div>`;
}
