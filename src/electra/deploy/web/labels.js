// Views of tasks whose answer is a label or a number: classify, multilabel, regression, choice.

import { bars, h, linesOf } from "./dom.js";
import { number, percent, word } from "./words.js";

const ofText = {
  fields: (model) => [{ name: "text", kind: "text" }, ...(model.pair ? [{ name: "pair", kind: "text" }] : [])],
  body: (values) => ({ inputs: [values] }),
};

const row = ([label, score], strong = false) => ({ label, share: score, number: percent(score), strong });

/** A bar for each label, the given ones marked. */
function surestFirst(scores, given) {
  const surest = Object.entries(scores).sort(([, one], [, other]) => other - one);
  return bars(surest.map((one) => row(one, given.includes(one[0]))));
}

export const classify = {
  ...ofText,
  summary: ([said]) => word("say-label", { label: said.label, score: percent(said.score) }),
  show: ([said]) => surestFirst(said.scores, [said.label]),
};

export const multilabel = {
  ...ofText,
  summary: ([said]) => said.labels.map(({ label }) => label).join(", ") || word("say-none"),
  show: ([said]) => surestFirst(said.scores, said.labels.map(({ label }) => label)),
};

export const regression = {
  ...ofText,
  summary: ([said]) => word("say-number", { number: number(said.score) }),
  show: ([said]) => h("p", { class: "figure" }, number(said.score)),
};

export const choice = {
  fields: () => [{ name: "question", kind: "line" }, { name: "context", kind: "text", optional: true }, { name: "choices", kind: "choices" }],
  body: ({ question, context, choices }) => ({
    inputs: [{ text: question, ...(context?.trim() ? { pair: context } : {}), choices: linesOf(choices) }],
  }),
  summary: ([said]) => word("say-choice", { label: said.label, score: percent(said.score) }),
  show: ([said], { values }) => bars(linesOf(values.choices).map((label, place) => row([label, said.scores[place]], place === said.index))),
};
