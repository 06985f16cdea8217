// View of task generate: the text appears as it is written.

import { h, lengthOf } from "./dom.js";
import { word } from "./words.js";

export const generate = {
  streams: true,
  fields: () => [{ name: "prompt", kind: "text" }],
  body: ({ prompt }, model, settings) => ({ prompt, stream: true, ...settings }),
  /** A node that takes pieces: {node, written, add(piece)}. Models that continue a text show it before what
   * they wrote; those that read a source and write another text do not. */
  begin({ prompt }, model) {
    const written = h("span", { class: "written" });
    const node = h("p", { class: "passage", "aria-busy": "true" }, model.abilities.includes("predict") ? null : h("span", { class: "prompt" }, prompt), written);
    return { node, written, add: (piece) => written.append(piece) };
  },
  /** What is said when it is done. */
  summary: (written, { ended }) => {
    const count = word("say-written", { count: lengthOf(written) });
    return ["end", "length", "stop"].includes(ended) ? `${count} · ${word(`ended-${ended}`)}` : count;
  },
};
