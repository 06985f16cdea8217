// Nodes and characters.
//
// In: names, properties, children. Out: DOM nodes. A string becomes a text node, never markup, so no text of a model or of a user can
// be read as HTML; styles are set as custom properties, since the Content-Security-Policy forbids style attributes.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on`: listeners by event; `vars`: custom properties; false, null and undefined properties are left out. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, { on = {}, vars = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [event, listener] of Object.entries(on)) node.addEventListener(event, listener);
  for (const [name, value] of Object.entries(vars)) node.style.setProperty(name, String(value));
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A function (start, end) -> that part of a text. The server counts characters as Python does, by code points. */
export function slicer(text) {
  const characters = Array.from(text);
  return (start, end = characters.length) => characters.slice(start, end).join("");
}

/** The number of code points. */
export function lengthOf(text) {
  return Array.from(text).length;
}

/** The lines of a text that say something. */
export function linesOf(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

/** Rows of a label, a bar and a number, the bar being `share` (0 to 1) of the width. */
export function bars(rows) {
  return h("ol", { class: "bars" }, rows.map(({ label, share, number, strong = false }) =>
    h("li", { class: strong ? "strong" : null },
      h("span", { class: "bar-label" }, label),
      h("span", { class: "bar-number" }, number),
      h("span", { class: "bar", "aria-hidden": "true", vars: { "--share": `${Math.max(0, Math.min(1, share)) * 100}%` } }))));
}
