// Which view a task has, and which tasks may be asked of a model.
//
// A view is {fields(model), body(values, model), summary(predictions, context), show(predictions, context)}; `context` has the values
// that were sent, the model, its modes, and what a view may do: ask, put a value into the form, run again, fail.

import { correct, fillMask } from "./blanks.js";
import { h } from "./dom.js";
import { choice, classify, multilabel, regression } from "./labels.js";
import { span, tag } from "./passages.js";
import { relation } from "./relations.js";
import { embed } from "./similarity.js";
import { replaced, score } from "./tokens.js";
import { word } from "./words.js";
import { generate } from "./writing.js";

const VIEWS = { classify, multilabel, regression, choice, tag, span, relation, embed, replaced, "fill-mask": fillMask, score, correct, generate };

const other = {
  fields: () => [{ name: "text", kind: "text" }],
  body: ({ text }) => ({ inputs: [text] }),
  summary: () => word("say-other"),
  show: (said) => h("pre", {}, JSON.stringify(said, null, 1)),
};

export function viewOf(mode) {
  return VIEWS[mode] ?? other;
}

export function isKnown(mode) {
  return mode in VIEWS;
}

/** What may be asked of a model, its own task first. */
export function modesOf({ task, tasks = [], abilities = [] }) {
  const writes = abilities.includes("generate") ? ["generate"] : [];
  return [...new Set([...(tasks.length ? tasks : writes.length ? [] : [task]), ...writes])].filter(Boolean);
}
