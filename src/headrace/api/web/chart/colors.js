// The page's colours as the canvas needs them: the style sheet has them once, for dark and light.

export const N_COLORS = 12;

export function paint() {
  const probe = document.createElement("span");
  probe.style.display = "none";
  document.body.append(probe);
  const of = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const names = { text: "--hr-text", dim: "--hr-dim", line: "--hr-line", grid: "--hr-grid", card: "--hr-card", warn: "--hr-warn", bad: "--hr-bad" };
  const found = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, of(name)]));
  found.curves = Array.from({ length: N_COLORS }, (_, i) => of(`--hr-c${i}`));
  probe.remove();
  return found;
}

export function faint(color, alpha) {
  const numbers = color.match(/[\d.]+/g);
  return `rgba(${numbers[0]}, ${numbers[1]}, ${numbers[2]}, ${alpha})`;
}
