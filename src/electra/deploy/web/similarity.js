// View of task embed: texts in the order of their cosine to one.

import { bars, linesOf } from "./dom.js";
import { number, word } from "./words.js";

function cosine(one, other) {
  const product = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
  return product(one, other) / Math.max(1e-12, Math.sqrt(product(one, one) * product(other, other)));
}

function ranked([query, ...others], { values }) {
  const lines = linesOf(values.lines);
  return others.map(({ embedding }, place) => ({ text: lines[place], score: cosine(query.embedding, embedding) }))
    .sort((one, other) => other.score - one.score);
}

export const embed = {
  fields: () => [{ name: "query", kind: "line" }, { name: "lines", kind: "lines" }],
  body: ({ query, lines }) => ({ inputs: [query, ...linesOf(lines)] }),
  summary: (said, context) => {
    const [best] = ranked(said, context);
    return word("say-ranking", { text: best.text, score: number(best.score) });
  },
  show: (said, context) => bars(ranked(said, context).map(({ text, score }, place) =>
    ({ label: text, share: score, number: score.toFixed(3), strong: place === 0 }))),
};
