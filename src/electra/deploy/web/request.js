// The request as a command line, and the reply as JSON, folded: how to ask the same from elsewhere.

import { hasKey } from "./api.js";
import { h } from "./dom.js";
import { word } from "./words.js";

const SHOWN = 16; // numbers of a vector that are written out

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function command(path, body) {
  const key = hasKey() ? ` -H "Authorization: Bearer $KEY"` : "";
  return `curl ${quoted(String(new URL(path, document.baseURI)))}${key} -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body))}`;
}

function shortened(name, value) {
  const vector = Array.isArray(value) && value.length > SHOWN && value.every((one) => typeof one === "number");
  return vector ? `… ${word("numbers", { count: value.length })}` : value;
}

export function requestNode(path, body, reply) {
  const line = command(path, body);
  const button = h("button", { type: "button", class: "quiet", on: { click: () => navigator.clipboard?.writeText(line).then(() => (button.textContent = word("copied")), () => {}) } }, word("copy"));
  return h("details", { class: "request" }, h("summary", {}, word("request")),
    h("pre", { tabindex: 0 }, line), button, h("pre", { tabindex: 0 }, JSON.stringify(reply, shortened, 1)));
}
