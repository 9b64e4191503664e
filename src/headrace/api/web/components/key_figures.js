// The row of figures over the charts.

export default {
  props: { figures: Array },
  template: `
    <dl class="hr-figures" aria-label="The plant in figures">
      <div v-for="one in figures" :key="one.label" class="hr-figure" :class="one.tone">
        <dt>{{ one.label }}</dt>
        <dd><span class="hr-value">{{ one.value }}<small v-if="one.unit">{{ one.unit }}</small></span>
          <svg v-if="one.spark && one.spark.length > 1" class="hr-spark" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
            <path class="area" :d="path(one.spark, true)"/><path class="line" :d="path(one.spark, false)"/></svg>
          <span class="hr-hint">{{ one.hint || "\\u00a0" }}</span></dd>
      </div>
    </dl>`,
  methods: {
    path(values, closed) {
      const most = Math.max(...values, 1e-9) * 1.12;
      const step = 100 / (values.length - 1);
      const line = values.map((v, i) => `${i ? "L" : "M"}${(i * step).toFixed(2)} ${(23 - (22 * v) / most).toFixed(2)}`).join("");
      return closed ? `${line}L100 24L0 24Z` : line;
    },
  },
};
