// Views of tasks whose answer is a part of the text: tag (entities), span (an answer).

import { bars, h, slicer } from "./dom.js";
import { percent, word } from "./words.js";

/** The same label has the same colour in every text; hues go around the circle by the golden angle. */
function hueOf(label, labels) {
  return (labels.indexOf(label) * 137.5 + 200) % 360;
}

export const tag = {
  fields: () => [{ name: "text", kind: "text" }],
  body: ({ text }) => ({ inputs: [text] }),
  summary: ([{ entities }]) => (entities.length ? word("say-entities", { count: entities.length }) : word("no-entities")),
  show: ([{ entities }], { values, model }) => {
    const labels = [...new Set(model.labels.map((label) => label.replace(/^[BI]-/, "")))];
    const cut = slicer(values.text);
    let behind = 0;
    const parts = entities.flatMap(({ entity_group: label, score, start, end }) => {
      const before = cut(behind, start);
      behind = end;
      return [before, h("mark", { class: "entity", vars: { "--hue": hueOf(label, labels) }, title: percent(score) }, cut(start, end), h("small", {}, label))];
    });
    const rows = entities.map(({ entity_group: label, score, start, end }) => h("li", {},
      h("strong", {}, cut(start, end)), h("span", { class: "relation" }, label), h("span", { class: "number" }, `${start}–${end} · ${percent(score)}`)));
    return h("div", {}, h("p", { class: "passage" }, parts, cut(behind)), h("ul", { class: "facts" }, rows));
  },
};

function highlighted(text, { start, end }) {
  const cut = slicer(text);
  return [cut(0, start), end > start ? h("mark", { class: "answer" }, cut(start, end)) : null, cut(end)];
}

export const span = {
  fields: () => [{ name: "question", kind: "line" }, { name: "context", kind: "text" }],
  body: ({ question, context }) => ({ inputs: [{ question, context }] }),
  summary: ([said]) => word(said.answer ? "say-answer" : "no-answer", { answer: said.answer, score: percent(said.score) }),
  show: ([said], { values }) => {
    const passage = h("p", { class: "passage" }, highlighted(values.context, said));
    const others = said.n_best.filter(({ start, end }) => start !== said.start || end !== said.end);
    const show = (one) => () => passage.replaceChildren(...highlighted(values.context, one).filter(Boolean));
    const list = [...(said.answer ? [said] : []), ...others].map((one) => h("li", {},
      h("button", { type: "button", class: "row", on: { click: show(one), focus: show(one) } },
        bars([{ label: one.answer, share: one.score, number: percent(one.score) }]))));
    return h("div", {}, passage, list.length ? h("h3", {}, word("n-best")) : null, h("ol", { class: "rows" }, list));
  },
};
