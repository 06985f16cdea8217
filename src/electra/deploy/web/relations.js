// View of task relation: triples, and their graph as SVG.
//
// Every different mention is a node; nodes stand on an ellipse, two above one another. Edges between the same nodes bend apart.

import { h, linesOf, svg } from "./dom.js";
import { unmarked } from "./fields.js";
import { percent, word } from "./words.js";

const WIDTH = 380;
const NODE = 32; // height
const DIRECTED = /^(.+?)\s*\(e([12]),\s*e([12])\)$/;

/** {subject, relation, object, score}; `R(e2,e1)` says that the tail is the subject. */
function triple({ label, score, head, tail }) {
  const found = DIRECTED.exec(label);
  const turned = found && found[2] === "2" && found[3] === "1";
  const [subject, object] = turned ? [tail.word, head.word] : [head.word, tail.word];
  return { subject, object, score, relation: found && found[2] !== found[3] ? found[1] : label };
}

const widthOf = (text) => [...text].reduce((sum, character) => sum + (character > "\u2e80" ? 14 : 7.6), 0);

function shortened(text, room) {
  const characters = [...text];
  while (characters.length > 1 && widthOf(characters.join("")) > room) characters.pop();
  const short = characters.join("");
  return short === text ? text : `${short.trimEnd()}…`;
}

function placed(names) {
  const height = names.length < 3 ? 210 : Math.min(520, 150 + 44 * names.length);
  const places = names.map((name, number) => {
    const angle = (2 * Math.PI * number) / names.length - Math.PI / 2;
    const width = Math.min(150, Math.max(48, widthOf(name) + 24));
    const reach = names.length < 3 ? 0 : WIDTH / 2 - 80;
    return { name, width, x: WIDTH / 2 + reach * Math.cos(angle), y: height / 2 + (height / 2 - NODE) * Math.sin(angle) };
  });
  return { height, places: new Map(places.map((place) => [place.name, place])) };
}

/** The point where a line from the middle of a node towards (x, y) leaves its box. */
function border(node, x, y) {
  const [dx, dy] = [x - node.x, y - node.y];
  const scale = Math.min(node.width / 2 / Math.max(1e-6, Math.abs(dx)), NODE / 2 / Math.max(1e-6, Math.abs(dy)));
  return [node.x + dx * Math.min(1, scale), node.y + dy * Math.min(1, scale)];
}

function edge({ subject, object, relation }, places, number) {
  const [from, to] = [places.get(subject), places.get(object)];
  if (from === to) return null; // a mention with itself stands in the list alone
  const bend = number === 0 ? 0 : 46 * (number % 2 ? 1 : -1) * Math.ceil(number / 2);
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy) || 1;
  const [x, y] = [(from.x + to.x) / 2 - (dy / length) * bend, (from.y + to.y) / 2 + (dx / length) * bend];
  const [begin, end] = [border(from, x, y), border(to, x, y)];
  const text = shortened(relation, 170);
  const width = widthOf(text) + 12;
  const middle = [(begin[0] + 2 * x + end[0]) / 4, (begin[1] + 2 * y + end[1]) / 4];
  return [
    svg("path", { class: "edge", d: `M${begin.join(" ")} Q${x} ${y} ${end.join(" ")}`, "marker-end": "url(#arrow)" }),
    svg("rect", { class: "edge-back", x: middle[0] - width / 2, y: middle[1] - 11, width, height: 22, rx: 6 }),
    svg("text", { class: "edge-text", x: middle[0], y: middle[1] }, text),
  ];
}

function graph(triples) {
  const { height, places } = placed([...new Set(triples.flatMap(({ subject, object }) => [subject, object]))]);
  const seen = new Map();
  const edges = triples.map((one) => {
    const ends = [one.subject, one.object].sort().join("\n");
    const number = seen.get(ends) ?? 0;
    seen.set(ends, number + 1);
    return edge(one, places, number);
  });
  const nodes = [...places.values()].map(({ name, width, x, y }) => svg("g", {},
    svg("title", {}, name),
    svg("rect", { class: "node", x: x - width / 2, y: y - NODE / 2, width, height: NODE, rx: NODE / 2 }),
    svg("text", { class: "node-text", x, y }, shortened(name, width - 20))));
  const arrow = svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" },
    svg("path", { class: "arrow", d: "M0 0 L8 4 L0 8 z" }));
  return svg("svg", { class: "graph", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": word("graph-alt", { count: triples.length }) },
    svg("defs", {}, arrow), edges.flat().filter(Boolean), nodes);
}

export const relation = {
  fields: () => [{ name: "marked", kind: "marked" }],
  body: ({ marked }) => ({ inputs: linesOf(marked).map(unmarked) }),
  summary: (said) => (said.length > 1 ? word("say-relations", { count: said.length }) : word("say-label", { label: said[0].label, score: percent(said[0].score) })),
  show: (said) => {
    const triples = said.map(triple);
    const list = triples.map(({ subject, relation: name, object, score }) => h("li", {},
      h("strong", {}, subject), h("span", { class: "relation" }, `${name} →`), h("strong", {}, object), h("span", { class: "number" }, percent(score))));
    return h("div", {}, graph(triples), h("ul", { class: "facts" }, list));
  },
};
