// The plant's sensors: a tree whose children are asked for when a level is opened, or what a search found.
// Only the rows in sight are in the document, so a level of a hundred thousand costs what a screenful does.

const ROW = 28;
const AROUND = 8;

export default {
  props: { charted: Object, levels: Array },
  template: `
    <section class="hr-tree" aria-label="Sensors">
      <div class="hr-search">
        <svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="7" cy="7" r="4.5"/><path d="M10.5 10.5 14 14"/></svg>
        <input ref="input" type="search" v-model="text" placeholder="Search sensors" aria-label="Search sensors"
          autocomplete="off" spellcheck="false" aria-controls="hr-sensors" @input="typed" @keydown="searchKey">
        <kbd v-if="!text" aria-hidden="true">/</kbd>
      </div>
      <div class="hr-tree-note" role="status">{{ note }}</div>
      <div id="hr-sensors" ref="scroller" class="hr-rows" tabindex="0" :role="searching ? 'listbox' : 'tree'"
        aria-label="Sensors of the plant" :aria-multiselectable="true"
        :aria-activedescendant="rows.length ? 'hr-row-' + at : undefined" @scroll.passive="scrolled" @keydown="key">
        <div :style="{ height: rows.length * ${ROW} + 'px' }" class="hr-rows-inner" role="presentation">
          <div v-for="row in visible" :key="row.key" :id="'hr-row-' + row.index" class="hr-row"
            :class="{ at: row.index === at, sensor: row.sensor, more: row.kind === 'more', flat: searching }"
            :style="{ top: row.index * ${ROW} + 'px', paddingLeft: (searching ? 12 : 10 + 15 * (row.level - 1)) + 'px' }"
            :role="searching ? 'option' : 'treeitem'" :aria-level="searching ? undefined : row.level"
            :aria-expanded="row.branch ? row.open : undefined" :aria-selected="row.path in charted"
            :aria-label="label(row)" :title="row.path" @click="click(row)">
            <span v-if="!searching" class="hr-twist" :class="{ open: row.open, none: !row.branch, busy: row.loading }"
              aria-hidden="true"></span>
            <span v-if="row.sensor" class="hr-pick" aria-hidden="true"
              :style="row.path in charted ? { background: 'var(--hr-c' + charted[row.path] + ')', borderColor: 'transparent' } : {}"></span>
            <span class="hr-name"><template v-if="searching"><span class="hr-above"><bdi dir="ltr" v-html="marked(row.parent)"></bdi></span><b v-html="marked(row.name)"></b></template>
              <template v-else>{{ row.name }}</template></span>
            <span class="hr-count">{{ row.side }}</span>
          </div>
        </div>
        <div v-if="empty" class="hr-empty">{{ empty }}</div>
      </div>
    </section>`,
  data() {
    return {
      text: "", asked: "", number: 0, hits: null, cut: false, nodes: {}, at: 0, top: 0, height: 600, busy: true, error: "",
    };
  },
  computed: {
    searching() {
      return this.text.trim() !== "";
    },
    rows() {
      const rows = this.searching ? this.hitRows() : this.treeRows();
      rows.forEach((row, index) => (row.index = index));
      return rows;
    },
    visible() {
      const first = Math.max(0, Math.floor(this.top / ROW) - AROUND);
      return this.rows.slice(first, first + Math.ceil(this.height / ROW) + 2 * AROUND);
    },
    note() {
      if (!this.searching) return this.error;
      if (this.error) return this.error;
      if (this.hits === null || this.asked !== this.text.trim()) return "Searching…";
      if (!this.hits.length) return "";
      return this.cut ? `The first ${this.hits.length.toLocaleString("en")}; type more to narrow` :
        `${this.hits.length.toLocaleString("en")} found`;
    },
    empty() {
      if (this.rows.length) return "";
      if (this.searching) return this.hits === null || this.asked !== this.text.trim() ? "" : `No sensor has “${this.text.trim()}” in its path`;
      return this.busy ? "Reading the plant’s sensors…" : "No sensors yet. They appear when the first device answers.";
    },
  },
  mounted() {
    this.sizes = new ResizeObserver(() => (this.height = this.$refs.scroller.clientHeight));
    this.sizes.observe(this.$refs.scroller);
    this.$emit("open", { path: "", after: "" });
  },
  unmounted() {
    this.sizes.disconnect();
    clearTimeout(this.later);
  },
  methods: {
    // --- what the server says
    fill({ path, after, nodes, more, error }) {
      this.busy = false;
      this.error = error || "";
      const known = this.nodes[path] ?? (this.nodes[path] = { children: [], open: false, more: false, loading: false });
      known.loading = false;
      if (error) return;
      known.children = after ? [...known.children, ...nodes] : nodes;
      known.more = more;
      const isFirst = !known.seen;
      if (isFirst) known.open = known.seen = true;
      // A plant whose first levels have few branches is opened that far by itself.
      const level = path ? path.split("/").length : 0;
      if (isFirst && !after && !this.touched && !more && level < 3 && nodes.length <= (level < 2 ? 4 : 1)) {
        for (const node of nodes) if (!node.sensor) this.toggle(node);
      }
    },
    results({ number, hits, cut, error }) {
      if (number !== this.number) return;
      this.asked = this.text.trim();
      this.hits = hits;
      this.cut = cut;
      this.error = error || "";
      this.at = 0;
      this.$refs.scroller.scrollTop = 0;
    },
    // The plant has new sensors: what is open is read again, as far as one reading holds it.
    grown() {
      const open = Object.entries(this.nodes).filter(([, known]) => known.open && !known.more && !known.loading);
      for (const [path] of [...open.slice(0, 20), ...(this.nodes[""]?.children.length ? [] : [["", null]])]) this.$emit("open", { path, after: "" });
    },
    // --- rows
    treeRows() {
      const out = [];
      const walk = (path, level) => {
        const known = this.nodes[path];
        if (!known) return;
        for (const node of known.children) {
          const below = this.nodes[node.path];
          const branch = !node.sensor || node.n > 1;
          const open = branch && !!below?.open;
          out.push({ ...node, key: node.path, level, branch, open, loading: !!below?.loading,
            side: node.sensor ? node.unit : node.n.toLocaleString("en") });
          if (open) walk(node.path, level + 1);
        }
        if (known.more) {
          out.push({ key: path + "/…", kind: "more", path, name: known.loading ? "Reading more…" : "Show more", level, side: "" });
        }
      };
      walk("", 1);
      return out;
    },
    hitRows() {
      return (this.hits ?? []).map((hit) => {
        const cut = hit.path.lastIndexOf("/") + 1;
        return { ...hit, key: hit.path, sensor: true, level: 1, parent: hit.path.slice(0, cut), name: hit.path.slice(cut), side: hit.unit };
      });
    },
    label(row) {
      if (row.kind === "more") return row.name;
      if (row.sensor) return `${this.searching ? row.path : row.name}${row.side ? ", " + row.side : ""}${row.path in this.charted ? ", charted" : ""}`;
      return `${row.name}, ${row.side} sensors`;
    },
    marked(text) {
      const words = this.text.trim().toLowerCase().split(/\s+/).filter(Boolean).sort((a, b) => b.length - a.length);
      const safe = (one) => one.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
      const places = new RegExp(`(${words.map((w) => w.replace(/[.*+?^${"$"}{}()|[\]\\]/g, "\\$&")).join("|")})`, "gi");
      return text.split(places).map((part, i) => (i % 2 ? `<mark>${safe(part)}</mark>` : safe(part))).join("");
    },
    // --- what the person does
    typed() {
      clearTimeout(this.later);
      const text = this.text.trim();
      this.number += 1;
      if (!text) {
        this.hits = null;
        this.at = 0;
        return;
      }
      this.later = setTimeout(() => this.$emit("search", { text, number: this.number }), 160);
    },
    scrolled() {
      this.top = this.$refs.scroller.scrollTop;
      const last = this.visible[this.visible.length - 1];
      if (last?.kind === "more") this.more(last);
    },
    more(row) {
      const known = this.nodes[row.path];
      if (known.loading) return;
      known.loading = true;
      this.$emit("open", { path: row.path, after: known.children[known.children.length - 1].name });
    },
    toggle(row) {
      const known = this.nodes[row.path];
      if (known?.children.length) known.open = !known.open;
      else if (!known?.loading) {
        this.nodes[row.path] = { children: [], open: false, more: false, loading: true };
        this.$emit("open", { path: row.path, after: "" });
      }
    },
    click(row) {
      this.touched = true;
      this.at = row.index;
      this.act(row);
    },
    act(row) {
      if (row.kind === "more") this.more(row);
      else if (row.sensor) this.$emit("pick", { path: row.path });
      else this.toggle(row);
    },
    go(index) {
      this.at = Math.min(Math.max(index, 0), Math.max(0, this.rows.length - 1));
      const box = this.$refs.scroller;
      const top = this.at * ROW;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
    },
    searchKey(e) {
      if (e.key === "Escape") {
        this.text = "";
        this.typed();
        this.$refs.scroller.focus();
      } else if (e.key === "ArrowDown") {
        this.$refs.scroller.focus();
        this.go(0);
      } else if (e.key === "Enter" && this.searching && this.rows.length) this.act(this.rows[this.at]);
      else return;
      e.preventDefault();
      e.stopPropagation();
    },
    key(e) {
      const row = this.rows[this.at];
      const page = Math.max(1, Math.floor(this.height / ROW) - 1);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      if (e.key === "ArrowUp" && this.at === 0 && this.searching) this.$refs.input.focus();
      else if (e.key in steps) this.go(this.at + steps[e.key]);
      else if (!row) return;
      else if (e.key === "Enter" || e.key === " ") this.act(row);
      else if (e.key === "ArrowRight" && row.branch) row.open ? this.go(this.at + 1) : this.toggle(row);
      else if (e.key === "ArrowLeft" && !this.searching) {
        if (row.open) this.toggle(row);
        else this.go(this.rows.findLastIndex((one, i) => i < this.at && one.level < row.level));
      } else return;
      e.preventDefault();
      e.stopPropagation();
    },
  },
};
