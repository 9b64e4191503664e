// Beside the charts: adapters' lights, what is stored and what was refused; and a sheet with an adapter's devices.

export default {
  props: { lights: Array, storage: Object, refused: Object, devices: Object },
  template: `
    <aside class="hr-rail" aria-label="How the plant is">
      <section class="hr-card"><h2>Adapters <span class="hr-dim">{{ lights.length || "" }}</span></h2>
        <ul class="hr-lights">
          <li v-for="one in lights" :key="one.name"><button @click="show(one.name)" :aria-label="one.name + ', ' + one.state + ', ' + one.devices + ' devices. Show its devices'">
            <i class="hr-light" :class="one.tone" aria-hidden="true"></i>
            <span class="hr-who"><b>{{ one.name }}</b> <span class="hr-dim">{{ one.protocol }}</span></span>
            <span class="hr-num" title="devices up">{{ one.devices }}</span>
            <span class="hr-age" title="last good sample">{{ one.age }}</span>
            <span v-if="one.reason || one.retry || one.tone !== 'good'" class="hr-reason"><em :class="one.tone">{{ one.state }}</em> {{ one.reason }} <span v-if="one.retry" class="hr-dim">· {{ one.retry }}</span></span>
          </button></li>
          <li v-if="!lights.length" class="hr-empty">No adapters are known while the engine is away.</li>
        </ul></section>
      <section class="hr-card"><h2>Store</h2>
        <table class="hr-table"><thead><tr><th>Tier</th><th></th><th class="r">Size</th><th class="r">Samples</th><th class="r">Ratio</th></tr></thead>
          <tbody><tr v-for="one in storage.tiers" :key="one.name"><th scope="row">{{ one.name }}</th>
            <td class="hr-bar-cell"><span class="hr-meter"><i :style="{ width: (one.share ? Math.max(one.share, 1) : 0) + '%' }" :class="one.name"></i></span></td>
            <td class="r">{{ one.size }}</td><td class="r">{{ one.samples }}</td><td class="r">{{ one.ratio }}</td></tr></tbody></table>
        <div v-if="storage.stages.length" class="hr-stages"><h3>CPU a sample <span class="hr-dim">{{ storage.total_ns }} ns</span></h3>
          <div class="hr-stack" role="img" :aria-label="'CPU by stage: ' + storage.stages.map(s => s.name + ' ' + s.ns + ' ns').join(', ')">
            <i v-for="(one, i) in storage.stages" :key="one.name" :style="{ width: one.share + '%', background: 'var(--hr-c' + i + ')' }"></i></div>
          <ul><li v-for="(one, i) in storage.stages" :key="one.name"><i :style="{ background: 'var(--hr-c' + i + ')' }" aria-hidden="true"></i>{{ one.name }} <span class="hr-num">{{ one.ns }}</span></li></ul></div>
      </section>
      <section class="hr-card"><h2>Rejects</h2>
        <p v-if="!refused.counts.length" class="hr-empty">Nothing was refused.</p>
        <ul v-else class="hr-counts"><li v-for="one in refused.counts" :key="one.adapter + one.code"><b>{{ one.code }}</b> <span class="hr-dim">{{ one.adapter }}</span>
          <span class="hr-age">{{ one.age }}</span><span class="hr-num">{{ one.n }}</span></li></ul>
        <ol v-if="refused.newest.length" class="hr-newest" aria-label="Newest rejects"><li v-for="(one, i) in refused.newest.slice(0, 5)" :key="i">
          <span class="hr-dim">{{ one.age }} · {{ one.source }}</span><br>{{ one.detail }}</li></ol></section>
      <div v-if="sheet" class="hr-veil right" @click.self="close">
        <div class="hr-sheet" role="dialog" aria-modal="true" aria-labelledby="hr-sheet-title" tabindex="-1" ref="sheet">
          <header><i v-if="devices" class="hr-light" :class="devices.tone" aria-hidden="true"></i><h2 id="hr-sheet-title">{{ sheet }} <span class="hr-dim">{{ devices?.protocol }}</span></h2>
            <button class="hr-icon" aria-label="Close" @click="close"><svg viewBox="0 0 16 16" aria-hidden="true"><path d="m4 4 8 8M12 4l-8 8"/></svg></button></header>
          <p v-if="!devices" class="hr-empty">Asking the adapter…</p>
          <p v-else-if="devices.error" class="hr-empty">{{ devices.error }}</p>
          <template v-else>
            <p class="hr-sum"><span>{{ devices.state }}<template v-if="devices.reason">: {{ devices.reason }}</template></span><span>{{ devices.samples }} samples</span><span>answers in {{ devices.latency }}</span></p>
            <div class="hr-filter"><input type="search" v-model="text" placeholder="Filter devices" aria-label="Filter devices" @input="ask"><span class="hr-dim">{{ devices.shown }} of {{ devices.total }}</span></div>
            <div class="hr-scroll" tabindex="0"><table class="hr-table hr-devices"><thead><tr><th>Device</th><th>Last good</th><th class="r">Requests</th><th class="r">Errors</th><th class="r">Timeouts</th><th class="r">Skipped</th></tr></thead>
              <tbody><template v-for="one in devices.rows" :key="one.path"><tr><th scope="row"><i class="hr-light" :class="one.tone" role="img" :aria-label="one.state"></i>{{ one.path }}</th>
                <td>{{ one.age }}</td><td class="r">{{ one.requests }}</td><td class="r">{{ one.errors }}</td><td class="r">{{ one.timeouts }}</td><td class="r">{{ one.skipped }}</td></tr>
                <tr v-if="one.reason || one.retry" class="hr-why"><td colspan="6">{{ one.state }}: {{ one.reason }} <span v-if="one.retry" class="hr-dim">· {{ one.retry }}</span></td></tr></template>
                <tr v-if="!devices.rows.length"><td colspan="6" class="hr-empty">No device matches.</td></tr></tbody></table></div>
          </template>
        </div></div>
    </aside>`,
  data() {
    return { sheet: "", text: "" };
  },
  mounted() {
    window.addEventListener("hr-escape", this.close);
  },
  unmounted() {
    window.removeEventListener("hr-escape", this.close);
  },
  methods: {
    show(name) {
      this.back = document.activeElement;
      this.sheet = name;
      this.text = "";
      this.$emit("devices", { name, text: "" });
      this.$nextTick(() => this.$refs.sheet.focus());
    },
    ask() {
      this.$emit("devices", { name: this.sheet, text: this.text });
    },
    close() {
      if (!this.sheet) return;
      this.sheet = "";
      this.$emit("devices", { name: "", text: "" });
      this.back?.focus();
    },
  },
};
