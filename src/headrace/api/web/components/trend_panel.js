// Charts of the chosen sensors: what the server says is drawn, what the person does to the time is told to it.

import { N_COLORS, PlantTime, before, chartOption, joined, nearest, paint, rowHeights, short, span, summary, tooltipHtml, unpacked, worded } from "headrace-chart";
import { echarts } from "nicegui-echart";

const PRESETS = [["5m", 300e3], ["15m", 900e3], ["1h", 3600e3], ["6h", 21600e3], ["24h", 86400e3], ["7d", 604800e3], ["30d", 2592000e3]];
const SHORTEST = 10, LONGEST = 20 * 365 * 86400e3;

export default {
  props: { zone: String, start: Object, colors: Object },
  template: `
    <section class="hr-card hr-trends" aria-label="Trends">
      <div class="hr-tools" role="toolbar" aria-label="Time shown">
        <div class="hr-segments"><button v-for="[name, ms] in presets" :key="name" :class="{ on: length === ms }" :aria-pressed="length === ms" @click="preset(ms)">{{ name }}</button></div>
        <div class="hr-segments"><button aria-label="Earlier" title="Earlier ([)" @click="act('earlier')">‹</button><button aria-label="Wider" title="More time (−)" @click="act('wider')">−</button><button aria-label="Closer" title="Less time (+)" @click="act('closer')">+</button><button aria-label="Later" title="Later (])" :disabled="live" @click="act('later')">›</button></div>
        <button class="hr-live" :class="{ on: live }" :aria-pressed="live" title="Follow the present (l)" @click="act('live')"><i aria-hidden="true"></i>Live</button>
        <span class="hr-grow"></span>
        <span class="hr-resolution" role="status">{{ resolution }}</span>
      </div>
      <div class="hr-progress" :class="{ on: busy }" aria-hidden="true"></div>
      <p v-if="problem" class="hr-note bad" role="alert">{{ problem }}</p>
      <div v-show="ready && trend.series.length" ref="area" class="hr-chart" :style="{ height: height + 'px' }">
        <div ref="canvas" class="hr-canvas" tabindex="0" role="img" :aria-label="spoken"></div>
        <div v-if="box" class="hr-zoombox" :style="{ left: box.left + 'px', width: box.width + 'px' }"></div>
        <div v-if="ready && nothing" class="hr-over">No samples between {{ from }} and {{ to }}</div>
      </div>
      <div v-if="ready && !trend.series.length" class="hr-welcome"><svg viewBox="0 0 120 40" aria-hidden="true"><path d="M2 30c12 0 14-20 26-20s14 18 26 18 14-24 26-24 14 16 38 16"/></svg>
        <p><b>Choose sensors to chart them</b>Pick them in the tree, or press <kbd>/</kbd> and type a part of a name.</p></div>
      <div v-if="!ready" class="hr-welcome"><p class="hr-dim">Reading…</p></div>
      <div v-if="ready && trend.series.length" class="hr-scroll"><table class="hr-table hr-legend"><caption class="hr-hidden">Charted sensors with their newest values and what the shown time amounts to</caption>
        <thead><tr><th>Sensor</th><th class="r">Newest</th><th>Age</th><th class="r hr-only-wide">Least</th><th class="r hr-only-wide">Mean</th><th class="r hr-only-wide">Most</th><th><span class="hr-hidden">Take off</span></th></tr></thead>
        <tbody><tr v-for="one in legend" :key="one.path"><th scope="row" :title="one.path"><i :style="{ background: 'var(--hr-c' + one.color + ')' }" aria-hidden="true"></i><span class="hr-dim hr-parent">{{ one.parent }}</span><span>{{ one.name }}</span></th>
          <td class="r hr-newest-value" :data-path="one.path"><b>{{ one.last }}</b> <span class="hr-dim">{{ one.unit }}</span><em v-if="one.quality" :class="one.tone">{{ one.quality }}</em></td><td class="hr-dim hr-when">{{ one.age }}</td>
          <td class="r hr-only-wide">{{ one.least }}</td><td class="r hr-only-wide">{{ one.mean }}</td><td class="r hr-only-wide">{{ one.most }}</td>
          <td class="r"><button class="hr-icon small" :aria-label="'Take ' + one.path + ' off'" @click="$emit('pick', { path: one.path })"><svg viewBox="0 0 16 16" aria-hidden="true"><path d="m4.5 4.5 7 7M11.5 4.5l-7 7"/></svg></button></td></tr></tbody></table></div>
      <p v-for="text in trend.missing" :key="text" class="hr-note warn">{{ text }}</p>
      <p v-if="trend.gone.length" class="hr-note warn">Not there any more: {{ trend.gone.join(", ") }}</p>
    </section>`,
  data() {
    return {
      presets: PRESETS, length: this.start.length_ms, end: this.start.end_ms, number: 0, busy: true, ready: false, problem: "", box: null, height: 420,
      trend: { series: [], rows: [], missing: [], gone: [], start: 0, end: 1, every: null, every_ms: null },
    };
  },
  computed: {
    live() {
      return this.end === null;
    },
    nothing() {
      return this.trend.series.every((one) => !one.t.length);
    },
    from() {
      return this.time.full(this.trend.start, false);
    },
    to() {
      return this.time.full(this.trend.end, false);
    },
    resolution() {
      if (!this.ready || !this.trend.series.length) return "";
      const shown = span(this.trend.end - this.trend.start);
      return this.trend.every === null ? `${shown} · every sample` : `${shown} · mean and range of ${this.trend.every}`;
    },
    legend() {
      return this.trend.series.map((one) => {
        const found = summary(one), cut = one.path.lastIndexOf("/") + 1;
        const state = one.labels.length > 0;
        const mark = one.q.length && one.q[one.q.length - 1][0] >= one.t.length - 1 ? one.q[one.q.length - 1] : null;
        const age = found.at === null ? null : (this.trend.now ?? this.trend.end) - found.at - (this.trend.every_ms ?? 0) / 2;
        return {
          path: one.path, parent: one.path.slice(0, cut), name: one.path.slice(cut), color: one.color, unit: one.unit,
          last: one.text ?? worded(found.last, one.labels, one.whole), least: state ? "" : short(found.least, one.whole),
          mean: state ? "" : short(found.mean, false), most: state ? "" : short(found.most, one.whole),
          age: age === null ? "" : age < 1000 ? "now" : span(age), quality: mark ? mark[2] : "", tone: mark?.[1] === "uncertain" ? "warn" : "bad",
        };
      });
    },
    spoken() {
      const said = this.legend.map((one) => `${one.path} ${one.last} ${one.unit}`).join("; ");
      return `Chart of ${this.legend.length} sensors, ${this.resolution}. ${said}`;
    },
  },
  created() {
    this.time = new PlantTime(this.zone);
  },
  mounted() {
    this.paint = paint();
    this.chart = echarts.init(this.$refs.canvas, null, { renderer: "canvas" });
    this.$refs.canvas.querySelector("canvas")?.setAttribute("aria-hidden", "true");
    this.sizes = new ResizeObserver(() => this.resized());
    this.sizes.observe(this.$el);
    this.themes = new MutationObserver(() => this.repaint());
    this.themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.system.addEventListener("change", this.repaint);
    window.addEventListener("hr-chart", this.told);
    document.addEventListener("visibilitychange", this.hidden);
    this.listen();
    this.look();
  },
  unmounted() {
    this.sizes.disconnect();
    this.themes.disconnect();
    this.system.removeEventListener("change", this.repaint);
    window.removeEventListener("hr-chart", this.told);
    document.removeEventListener("visibilitychange", this.hidden);
    this.chart.dispose();
  },
  methods: {
    // --- what the server says
    apply(fresh) {
      if (fresh.number !== this.number) return;
      this.busy = false;
      this.problem = fresh.problem ?? "";
      if (fresh.problem) return (this.ready = true);
      const series = unpacked(fresh.series, fresh.base).map((one) => ({ ...one, color: this.colors[one.path] ?? 0 }));
      this.trend = Object.freeze({ ...fresh, series });
      this.ready = true;
      if (fresh.address && fresh.address !== location.search) history.replaceState(history.state, "", fresh.address);
      this.$nextTick(() => this.resized() || this.draw());
    },
    renew(fresh) {
      if (fresh.number !== this.number || !this.ready) return;
      const held = Object.fromEntries(this.trend.series.map((one) => [one.path, one]));
      const series = unpacked(fresh.series, fresh.base).map((one) => {
        const color = this.colors[one.path] ?? 0;
        return held[one.path] ? { ...joined(held[one.path], one, fresh.since, fresh.start), color } : { ...one, color };
      });
      this.problem = "";
      this.trend = Object.freeze({ ...fresh, series });
      this.draw();
    },
    // --- drawing
    plotWidth() {
      return Math.max(100, this.$refs.canvas.clientWidth || this.$el.clientWidth);
    },
    resized() {
      // What is left of the window below the tools and above the table, so that both are in sight.
      const top = this.$el.getBoundingClientRect().top + (this.$el.closest(".hr-main")?.scrollTop ?? 0);
      const room = Math.max(300, window.innerHeight - top - 128 - 31 * this.trend.series.length);
      const heights = rowHeights(this.trend.rows, Math.min(room, 900));
      const height = Math.round(heights.reduce((a, b) => a + b, 0) + 28);
      const changed = height !== this.height || this.chart.getWidth() !== this.$refs.canvas.clientWidth;
      this.heights = heights;
      this.height = height;
      if (changed) this.$nextTick(() => { if (!this.chart.isDisposed()) { this.chart.resize(); this.draw(); } });
      return changed;
    },
    draw() {
      if (!this.trend.series.length || !this.heights || document.hidden) return;
      const { trend, paint, time } = this;
      const option = chartOption({ trend, paint, time, width: this.plotWidth(), heights: this.heights });
      option.tooltip = {
        trigger: "axis", confine: true, backgroundColor: paint.card, borderColor: paint.line, padding: 0, transitionDuration: 0,
        textStyle: { color: paint.text, fontSize: 12 }, formatter: (found) => this.tip(found),
      };
      this.chart.setOption(option, { notMerge: true });
    },
    tip(found) {
      const at = found?.[0]?.axisValue;
      if (at === undefined) return "";
      const find = (curve, t) => (curve.step ? before(curve.t, t) : nearest(curve.t, t));
      return tooltipHtml({ trend: this.trend, at, paint: this.paint, time: this.time, find });
    },
    repaint() {
      requestAnimationFrame(() => {
        this.paint = paint();
        this.draw();
      });
    },
    // --- what the person does
    look() {
      this.number += 1;
      this.busy = true;
      this.$emit("look", { number: this.number, length_ms: this.length, end_ms: this.end, width: this.plotWidth() - 78, hidden: document.hidden });
    },
    shown(start, end) {
      const length = Math.min(Math.max(end - start, SHORTEST), LONGEST);
      this.length = length;
      this.end = end;
      // What is known of the new span is shown at once; the rest follows.
      this.trend = Object.freeze({ ...this.trend, start: end - length, end });
      this.draw();
      clearTimeout(this.soon);
      this.soon = setTimeout(() => this.look(), 120);
    },
    preset(ms) {
      this.length = ms;
      this.end = null;
      this.look();
    },
    told(e) {
      this.act(e.detail);
    },
    act(what) {
      const { start, end } = this.trend, length = end - start;
      if (what === "live") {
        this.end = this.live ? Math.round(end) : null;
        return this.look();
      }
      if (what === "closer" || what === "wider") {
        const next = Math.min(Math.max(what === "closer" ? length / 2 : length * 2, SHORTEST), LONGEST);
        if (this.live) {
          this.length = Math.round(next);
          return this.look();
        }
        const middle = (start + end) / 2;
        return this.shown(middle - next / 2, middle + next / 2);
      }
      if (what === "earlier") this.shown(start - length / 2, end - length / 2);
      if (what === "later" && !this.live) this.shown(start + length / 2, end + length / 2);
    },
    hidden() {
      if (!document.hidden) this.draw();
      this.look();
    },
    listen() {
      const canvas = this.$refs.canvas;
      const timeAt = (x) => this.trend.start + ((this.trend.end - this.trend.start) * (Math.min(Math.max(x, 62), canvas.clientWidth - 16) - 62)) / (canvas.clientWidth - 78);
      const xOf = (e) => e.clientX - canvas.getBoundingClientRect().left;
      let from = null;
      canvas.addEventListener("pointerdown", (e) => {
        if (e.button === 0 && e.pointerType !== "touch") from = xOf(e);
      });
      window.addEventListener("pointermove", (e) => {
        if (from === null) return;
        const x = Math.min(Math.max(xOf(e), 62), canvas.clientWidth - 16);
        this.box = Math.abs(x - from) < 4 ? null : { left: Math.min(from, x), width: Math.abs(x - from) };
      });
      window.addEventListener("pointerup", () => {
        const box = this.box;
        from = this.box = null;
        if (box && box.width > 5) this.shown(timeAt(box.left), timeAt(box.left + box.width));
      });
      canvas.addEventListener("dblclick", () => this.act("wider"));
      canvas.addEventListener("wheel", (e) => {
        if (!e.ctrlKey && !e.metaKey) return;
        e.preventDefault();
        const at = timeAt(xOf(e)), factor = e.deltaY > 0 ? 1.25 : 0.8;
        this.shown(at - (at - this.trend.start) * factor, at + (this.trend.end - at) * factor);
      }, { passive: false });
    },
  },
};
