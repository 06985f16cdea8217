// Views that shade every token of a text: replaced (the discriminator view) and score.
//
// The tokens are buttons of which one is in the order of Tab; arrow keys move between them. In the discriminator view a
// token opens the generator's proposals for its place: the server's fill-mask is asked for the text with that token masked, and what
// is chosen is put in and the text judged again. What was changed is kept until another text is judged, so that it can be undone.

import { bars, h, slicer } from "./dom.js";
import { MASK } from "./fields.js";
import { number, percent, word } from "./words.js";

const PROPOSALS = 6;
const DOUBTFUL = 0.5; // from here on a token is underlined, too: nothing is told by colour alone

/** Tokens in the order of the text; those of the same characters (bytes of one sign) are one, with the highest share. */
function merged(tokens) {
  const found = [];
  for (const token of [...tokens].sort((one, other) => one.start - other.start || one.end - other.end)) {
    const last = found.at(-1);
    if (last && token.start < last.end) Object.assign(last, { share: Math.max(last.share, token.share), end: Math.max(last.end, token.end) });
    else if (token.end > token.start) found.push({ ...token });
  }
  return found;
}

/** The shaded text, and what is said of the token in focus. `tokens`: [{start, end, share, says}]; `open(token, button)`: one was chosen. */
function shaded(text, tokens, open = () => {}) {
  const cut = slicer(text);
  const readout = h("span", { class: "readout" }, word("token-keys"));
  const buttons = tokens.map((token, place) => {
    const label = word("token-says", { token: cut(token.start, token.end).trim() || "␣", score: token.says });
    const tell = () => readout.replaceChildren(label);
    // not <button>: browsers break lines around one, in the middle of a word
    return h("span", {
      role: "button", class: token.share >= DOUBTFUL ? "token doubtful" : "token", tabindex: place === 0 ? 0 : -1, "data-start": token.start,
      "aria-label": label, vars: { "--share": token.share.toFixed(3) },
      on: { focus: tell, mouseenter: tell, click: (event) => choose(event.currentTarget) },
    }, cut(token.start, token.end));
  });
  let behind = 0;
  const parts = tokens.flatMap((token, place) => {
    const before = cut(behind, token.start);
    behind = token.end;
    return [before, buttons[place]];
  });
  const choose = (button) => {
    reach(buttons, button);
    open(tokens[buttons.indexOf(button)], button);
  };
  const move = (event) => {
    const place = buttons.indexOf(event.target);
    if (place < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const next = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (next !== undefined) reach(buttons, buttons[Math.max(0, Math.min(buttons.length - 1, next))]);
    else if (event.key === "Enter" || event.key === " ") choose(event.target);
    else return;
    event.preventDefault();
  };
  return [h("p", { class: "passage tokens", role: "group", on: { keydown: move } }, parts, cut(behind)), h("p", { class: "hint" }, readout)];
}

/** Focus one of the buttons, the only one that Tab reaches from now on. */
function reach(buttons, chosen) {
  for (const button of buttons) button.tabIndex = button === chosen ? 0 : -1;
  chosen.focus();
}

/** What the shades mean. */
function scale(low, high) {
  return h("p", { class: "scale", "aria-hidden": "true" }, h("span", {}, low), h("span", { class: "ramp" }), h("span", {}, high));
}

/** The button of the token at a place, if there is one. */
function focusAt(node, start) {
  const buttons = [...node.querySelectorAll(".token")];
  const chosen = buttons.findLast((button) => Number(button.dataset.start) <= start);
  if (chosen) reach(buttons, chosen);
}

/** The generator's proposals for a token, as a panel. */
async function proposals(token, context) {
  const { text } = context.values;
  const cut = slicer(text);
  const masked = cut(0, token.start) + MASK + cut(token.end);
  const blank = cut(0, token.start).split(MASK).length - 1; // blanks of the text itself stand before it
  const { reply } = await context.ask({ task: "fill-mask", inputs: [masked], settings: { top_k: PROPOSALS } });
  const old = cut(token.start, token.end);
  return (reply.predictions[0].masks[blank] ?? []).map(({ token_str: name, score, sequence }) =>
    ({ name, old, score, present: name === token.token, text: sequence }));
}

function panel(token, button, node, context) {
  const { memory, values } = context;
  const body = h("div", { class: "panel-body" }, h("p", { class: "hint", role: "status" }, word("asking")));
  const close = () => {
    place.replaceChildren();
    button.removeAttribute("aria-expanded");
    button.focus();
  };
  for (const other of node.querySelectorAll(".token[aria-expanded]")) other.removeAttribute("aria-expanded");
  button.setAttribute("aria-expanded", "true");
  const title = word("proposals", { token: button.textContent, score: token.says });
  const place = node.querySelector(".panel-place");
  const take = ({ name, old, text }) => {
    memory.trail = [...trailOf(memory, values.text), { old, name, start: token.start, before: values.text, after: text, was: { share: token.share, mean: memory.mean } }];
    context.put("text", text);
    context.run((shown) => focusAt(shown, token.start));
  };
  place.replaceChildren(h("section", { class: "panel", "aria-label": title, on: { keydown: (event) => event.key === "Escape" && close() } },
    h("div", { class: "panel-head" }, h("h3", {}, title), h("button", { type: "button", class: "quiet", on: { click: close } }, word("close"))), body));
  proposals(token, context).then((found) => {
    if (!body.isConnected) return;
    const buttons = found.map((one) => h("button", { type: "button", class: "row", disabled: one.present, on: { click: () => take(one) } },
      bars([{ label: one.present ? `${one.name} · ${word("same")}` : one.name, share: one.score, number: percent(one.score) }])));
    body.replaceChildren(h("ol", { class: "rows" }, buttons.map((one) => h("li", {}, one))));
    buttons.find((one) => !one.disabled)?.focus();
  }, (trouble) => {
    close();
    context.fail(trouble);
  });
}

/** The changes that led to a text; none if it is another one. */
function trailOf({ trail = [] }, text) {
  return trail.at(-1)?.after === text ? trail : [];
}

/** What was changed, how probable that made the place and the text, and a way back. */
function trailNode(context, shares, mean) {
  const trail = trailOf(context.memory, context.values.text);
  if (!trail.length) return null;
  const latest = trail.at(-1);
  latest.is ??= { share: shares.findLast(({ start }) => start <= latest.start)?.share ?? 0, mean };
  const undo = () => {
    context.memory.trail = trail.slice(0, -1);
    context.put("text", latest.before);
    context.run((shown) => focusAt(shown, latest.start));
  };
  const rows = trail.map(({ old, name, was, is }) => h("li", {}, word("changed", {
    old, new: name, before: percent(was.share), after: percent(is.share), mean: percent(was.mean), now: percent(is.mean),
  })));
  return h("div", { class: "trail" }, h("h3", {}, word("trail")), h("ol", {}, rows), h("button", { type: "button", class: "quiet", on: { click: undo } }, word("undo")));
}

export const replaced = {
  fields: () => [{ name: "text", kind: "text" }],
  body: ({ text }) => ({ inputs: [text] }),
  summary: ([{ score }]) => word("say-replaced", { score: percent(score) }),
  show: ([{ score, tokens }], context) => {
    context.memory.mean = score;
    const proposes = context.modes.includes("fill-mask");
    const shares = merged(tokens.map((one) => ({ ...one, share: one.score }))).map((one) => ({ ...one, says: percent(one.share) }));
    const node = h("div", {});
    node.append(
      ...shaded(context.values.text, shares, proposes ? (token, button) => panel(token, button, node, context) : undefined),
      scale(word("scale-low"), word("scale-high")),
      proposes ? "" : h("p", { class: "hint" }, word("no-generator")),
      h("div", { class: "panel-place" }),
      trailNode(context, shares, score) ?? "",
    );
    return node;
  },
};

export const score = {
  fields: () => [{ name: "text", kind: "text" }],
  body: ({ text }) => ({ inputs: [text] }),
  summary: ([said]) => word("say-score", { score: number(said.score, 2), method: said.method ?? "replaced", reduce: said.reduce ?? "mean" }),
  show: ([{ tokens }], { values }) => h("div", {},
    shaded(values.text, merged(tokens.map((one) => ({ ...one, share: one.doubt ?? one.score, says: number(one.score, 2) })))),
    scale(word("scale-low"), word("scale-odd"))),
};
