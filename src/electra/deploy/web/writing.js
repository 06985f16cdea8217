// View of task generate: the text appears as it is written.

import { h, lengthOf } from "./dom.js";
import { word } from "./words.js";

export const generate = {
  streams: true,
  fields: () => [{ name: "prompt", kind: "text" }],
  body: ({ prompt }, model, settings) => ({ prompt, stream: true, ...settings }),
  /** A node that takes pieces: {node, add(piece)}. Models that continue a text show it before what they wrote. */
  begin({ prompt }, model) {
    const written = h("span", { class: "written" });
    const node = h("p", { class: "passage", "aria-busy": "true" }, model.task === "generate" ? null : h("span", { class: "prompt" }, prompt), written);
    return { node, written, add: (piece) => written.append(piece) };
  },
  /** What is said when it is done. */
  summary: (written, { ended }) => {
    const count = word("say-written", { count: lengthOf(written) });
    return ["end", "length", "stop"].includes(ended) ? `${count} · ${word(`ended-${ended}`)}` : count;
  },
};
