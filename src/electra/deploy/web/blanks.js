// Views of tasks that put words into a text: fill-mask and correct.

import { bars, h, slicer } from "./dom.js";
import { MASK } from "./fields.js";
import { percent, word } from "./words.js";

export const fillMask = {
  fields: () => [{ name: "masked", kind: "masked" }],
  body: ({ masked }) => ({ inputs: [masked] }),
  summary: ([{ masks }]) => (masks.length ? word("say-masks", { count: masks.length }) : word("no-masks")),
  show: ([{ masks }], context) => {
    const pieces = context.values.masked.split(MASK);
    const parts = pieces.flatMap((piece, place) => (place === 0 ? [piece] : [h("mark", { class: "answer" }, masks[place - 1]?.[0].token_str ?? MASK), piece]));
    const put = (sequence) => () => {
      context.put("masked", sequence);
      if (sequence.includes(MASK)) context.run();
    };
    const lists = masks.map((candidates, place) => h("section", {},
      h("h3", {}, word("blank", { number: place + 1 })),
      h("ol", { class: "rows" }, candidates.map(({ token_str: name, score, sequence }) => h("li", {},
        h("button", { type: "button", class: "row", on: { click: put(sequence) } }, bars([{ label: name, share: score, number: percent(score) }])))))));
    return h("div", {}, h("p", { class: "passage" }, parts), lists);
  },
};

export const correct = {
  fields: () => [{ name: "text", kind: "text" }],
  body: ({ text }) => ({ inputs: [text] }),
  summary: ([{ edits }]) => (edits.length ? word("say-edits", { count: edits.length }) : word("no-edits")),
  show: ([{ corrected, edits }], context) => {
    const cut = slicer(context.values.text);
    let behind = 0;
    const parts = edits.flatMap(({ start, end, old, new: fresh }) => {
      const before = cut(behind, start);
      behind = end;
      return [before, h("del", {}, old), h("ins", {}, fresh)];
    });
    const rows = edits.map(({ old, new: fresh, before, after }) =>
      h("li", {}, word("edit-says", { old, new: fresh, before: percent(before), after: percent(after) })));
    const take = () => context.put("text", corrected);
    return h("div", {}, h("p", { class: "passage" }, parts, cut(behind)), h("ol", { class: "notes" }, rows),
      edits.length ? h("button", { type: "button", on: { click: take } }, word("take")) : null);
  },
};
