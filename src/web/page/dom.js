// dom.js: makes elements and formats numbers.
// Guarantees: text from the service stays text, never markup; null is a dash, never a zero.
// Must not: know about runs or reports, or set styles (classes only).

// An element. `properties` are DOM properties, strings become text, null children are left out.
export function el(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const power = (n) => "10" + [...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");

// Four significant digits, a real minus sign, powers of ten outside 0.001 to 99,999; null is a dash.
export function format(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || (size >= 1e5 && !Number.isInteger(value)) || size >= 1e12)) {
    const [digits, exponent] = value.toExponential(2).split("e");
    return `${Number(digits)}\u202f×\u202f${power(Number(exponent))}`.replace(/^-/, "−");
  }
  const digits = Number.isInteger(value) ? value : Number(value.toPrecision(4));
  return digits.toLocaleString("en", { maximumFractionDigits: 6 }).replace(/^-/, "−");
}

export const plain = (word) => String(word ?? "unknown").replaceAll("_", " ");
export const count = (n, one) => `${format(n)} ${one}${n === 1 ? "" : "s"}`;

// Refills `node` only if `key` has changed, so that focus and selected text survive changes elsewhere.
export function patch(node, key, build) {
  const text = JSON.stringify(key);
  if (node.patched === text) return;
  node.patched = text;
  node.replaceChildren(...build().filter((child) => child !== null));
}
