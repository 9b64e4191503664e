// The head of the page: state, search and theme; and the keys that work everywhere.

const KEYS = [
  ["/", "search sensors"], ["↑ ↓ ← →", "move in the tree, open and close"], ["Enter", "chart the sensor, or take it off"],
  ["l", "follow the present"], ["+ −", "show less or more time"], ["[ ]", "earlier, later"], ["t", "dark, light, or as the system"],
  ["Esc", "close what is open"], ["?", "these keys"],
];
const THEMES = { auto: "As the system", light: "Light", dark: "Dark" };

export default {
  props: { head: Object, plant: String, version: String },
  template: `
    <header class="hr-bar">
      <button class="hr-icon hr-only-narrow" aria-label="Sensors" :aria-expanded="drawer" @click="toggleDrawer">
        <svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 4h12M2 8h12M2 12h12"/></svg></button>
      <a class="hr-brand" href="/" aria-label="Headrace, from the beginning">
        <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M2 7c4 0 4 3 8 3s4-3 8-3h4"/><path d="M2 12.5c4 0 4 3 8 3s4-3 8-3h4" opacity=".7"/><path d="M2 18c4 0 4 3 8 3s4-3 8-3h4" opacity=".4"/></svg>
        <b>Headrace</b></a>
      <span class="hr-plant" :title="plant">{{ plantName }}</span>
      <span class="hr-state" :class="head.tone" role="status"><i class="hr-light" :class="head.tone" aria-hidden="true"></i>{{ head.state }}</span>
      <span class="hr-grow"></span>
      <span class="hr-clock" :title="head.zone">{{ head.clock }} <small>{{ head.zone }}</small></span>
      <a class="hr-link hr-only-wide" href="/docs">API</a>
      <button class="hr-icon" :aria-label="'Theme: ' + themes[theme]" :title="'Theme: ' + themes[theme] + ' (t)'" @click="nextTheme">
        <svg v-if="theme === 'auto'" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="5.5"/><path d="M8 2.5v11a5.5 5.5 0 0 0 0-11z" fill="currentColor" stroke="none"/></svg>
        <svg v-else-if="theme === 'light'" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="3"/><path d="M8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.2 1.2M11.8 11.8 13 13M13 3l-1.2 1.2M4.2 11.8 3 13"/></svg>
        <svg v-else viewBox="0 0 16 16" aria-hidden="true"><path d="M13.5 9.6A6 6 0 1 1 6.4 2.5a4.8 4.8 0 0 0 7.1 7.1z"/></svg></button>
      <button class="hr-icon" aria-label="Keys" title="Keys (?)" @click="help = true"><span aria-hidden="true">?</span></button>
      <div v-if="head.banner" class="hr-banner" :class="head.tone" role="alert"><b>{{ head.banner }}</b><span v-if="head.detail">{{ head.detail }}</span></div>
      <div v-if="help" class="hr-veil" @click.self="help = false">
        <div class="hr-dialog" role="dialog" aria-modal="true" aria-labelledby="hr-help-title" tabindex="-1" ref="dialog">
          <h2 id="hr-help-title">Keys</h2>
          <dl><template v-for="[key, what] in keys" :key="key"><dt><kbd>{{ key }}</kbd></dt><dd>{{ what }}</dd></template></dl>
          <p>In a chart: drag to look closer, double-click to look wider, Ctrl and the wheel to do either about the pointer.</p>
          <footer><span class="hr-dim">Headrace {{ version }}</span><button class="hr-button" @click="help = false">Close</button></footer>
        </div>
      </div>
    </header>`,
  data() {
    return { help: false, keys: KEYS, themes: THEMES, theme: "auto", drawer: false };
  },
  computed: {
    plantName() {
      return this.plant.split("/").filter(Boolean).pop() ?? "";
    },
  },
  watch: {
    help(is) {
      if (is) this.$nextTick(() => this.$refs.dialog.focus());
    },
  },
  mounted() {
    this.theme = document.documentElement.dataset.theme ?? "auto";
    document.addEventListener("keydown", this.key);
    document.addEventListener("click", this.outside, true);
  },
  unmounted() {
    document.removeEventListener("keydown", this.key);
    document.removeEventListener("click", this.outside, true);
  },
  methods: {
    nextTheme() {
      const names = Object.keys(THEMES);
      this.theme = names[(names.indexOf(this.theme) + 1) % names.length];
      document.documentElement.dataset.theme = this.theme;
      try {
        localStorage.setItem("headrace-theme", this.theme);
      } catch {
        // A browser that keeps nothing follows the system the next time.
      }
    },
    toggleDrawer() {
      this.drawer = !this.drawer;
      document.documentElement.classList.toggle("hr-drawer-open", this.drawer);
    },
    closeDrawer() {
      if (this.drawer) this.toggleDrawer();
    },
    outside(e) {
      if (this.drawer && !e.target.closest(".hr-side, .hr-bar button")) this.closeDrawer();
    },
    key(e) {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      if (e.key === "Escape") {
        this.help = false;
        this.closeDrawer();
        window.dispatchEvent(new Event("hr-escape"));
        return;
      }
      if (e.target.closest("input, textarea, select, [contenteditable]")) return;
      const acts = { "/": () => this.search(), "?": () => (this.help = true), t: () => this.nextTheme() };
      const charts = { l: "live", "+": "closer", "=": "closer", "-": "wider", "[": "earlier", "]": "later" };
      if (e.key in acts) acts[e.key]();
      else if (e.key in charts) window.dispatchEvent(new CustomEvent("hr-chart", { detail: charts[e.key] }));
      else return;
      e.preventDefault();
    },
    search() {
      if (getComputedStyle(document.querySelector(".hr-only-narrow")).display !== "none" && !this.drawer) this.toggleDrawer();
      const input = document.querySelector(".hr-search input");
      input.focus();
      input.select();
    },
  },
};
