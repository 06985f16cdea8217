// Views of tasks whose answer is a label or a number: classify, multilabel, regression, choice.

import { bars, h, linesOf } from "./dom.js";
import { number, percent, word } from "./words.js";

const texts = (model) => [{ name: "text", kind: "text" }, ...(model.pair ? [{ name: "pair", kind: "text" }] : [])];

function input({ text, pair }) {
  return pair === undefined ? text : { text, pair };
}

const ofText = {
  fields: texts,
  body: (values, model) => ({ inputs: [input(model.pair ? values : { text: values.text })] }),
};

const row = ([label, score], strong = false) => ({ label, share: score, number: percent(score), strong });
const surest = (scores) => Object.entries(scores).sort(([, one], [, other]) => other - one);

/** Probabilities of all labels; where the server says that of the best one alone, the rest is one row. */
function scoresOf({ label, score, scores }, labels) {
  if (scores) return surest(scores);
  const others = labels.filter((one) => one !== label);
  const rest = others.length === 1 ? others[0] : word("others");
  return [[label, score], [rest, 1 - score]];
}

export const classify = {
  ...ofText,
  summary: ([said]) => word("say-label", { label: said.label, score: percent(said.score) }),
  show: ([said], { model }) => bars(scoresOf(said, model.labels ?? []).map((one) => row(one, one[0] === said.label))),
};

export const multilabel = {
  ...ofText,
  summary: ([said]) => said.labels.map(({ label }) => label).join(", ") || word("say-none"),
  show: ([said]) => {
    const given = said.labels.map(({ label }) => label);
    return bars(surest(said.scores).map((one) => row(one, given.includes(one[0]))));
  },
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
