// The form of a task: its fields, their checks, its buttons.
//
// In: the fields that a view names. Out: their values, or a Trouble before anything is sent. A field is {name, kind, optional}; kinds:
// `text` (an area), `line` (one line), `lines` (an area whose lines count), `choices` (two lines at least), `marked` (sentences with
// marks), `masked` (a text with blanks).

import { Trouble } from "./api.js";
import { h, lengthOf, linesOf } from "./dom.js";
import { number, word } from "./words.js";

/** What the server takes in one request. */
const LIMITS = { characters: 100_000, texts: 64, choices: 32 };
const ROWS = { text: 5, line: 1, lines: 6, choices: 4, marked: 5, masked: 4 };
/** Where something is missing, as every tokenizer of ours writes it. */
export const MASK = "[MASK]";
const MARKS = { head: ["[", "]"], tail: ["{", "}"] };
export const HEAD = /\[([^[\]]+)\]/;
export const TAIL = /\{([^{}]+)\}/;

/** The nodes of the fields; `changed(name, value)` after each change. */
export function fieldNodes(fields, values, changed) {
  return fields.map((field) => fieldNode(field, values[field.name] ?? "", (value) => changed(field.name, value)));
}

function fieldNode({ name, kind, optional = false }, value, changed) {
  const id = `field-${name}`;
  const attributes = { id, name, required: !optional, spellcheck: "false", autocomplete: "off", on: { input: (event) => changed(event.target.value) } };
  const control = kind === "line" ? h("input", { type: "text", ...attributes }) : h("textarea", { rows: ROWS[kind], ...attributes });
  control.value = value;
  const wrap = (before, after) => () => {
    const { selectionStart: from, selectionEnd: to } = control;
    control.setRangeText(before + control.value.slice(from, to) + after, from, to, "end");
    control.focus();
    changed(control.value);
  };
  const tools = kind === "marked"
    ? Object.entries(MARKS).map(([role, marks]) => h("button", { type: "button", class: "quiet", on: { click: wrap(...marks) } }, word(`tool-${role}`)))
    : kind === "masked" ? [h("button", { type: "button", class: "quiet", on: { click: wrap(MASK, "") } }, word("tool-mask"))] : [];
  return h("div", { class: "field" },
    h("label", { for: id }, word(id), optional ? h("span", { class: "hint" }, ` · ${word("optional")}`) : null),
    control, tools.length ? h("div", { class: "tools" }, tools) : null);
}

/** The first trouble of the values, with the name of its field; null if they may be sent. */
export function troubleIn(fields, values) {
  for (const field of fields) {
    const value = values[field.name] ?? "";
    const found = value.trim() ? badLines(field, value) : !field.optional && new Trouble("E-C770", { details: { field: word(`field-${field.name}`) } });
    if (found) return { trouble: found, field: field.name };
  }
  const count = charactersOf(values);
  if (count <= LIMITS.characters) return null;
  const details = { count: number(count), limit: number(LIMITS.characters) };
  return { trouble: new Trouble("E-C771", { details }), field: fields[0].name };
}

function badLines({ name, kind }, value) {
  if (!["lines", "choices", "marked"].includes(kind)) return null;
  const lines = linesOf(value);
  const least = kind === "choices" ? 2 : 1;
  // beside the lines goes the text they are compared with
  const limit = { lines: LIMITS.texts - 1, choices: LIMITS.choices, marked: LIMITS.texts }[kind];
  if (lines.length < least || lines.length > limit) {
    return new Trouble("E-C772", { details: { field: word(`field-${name}`), count: lines.length, least, limit } });
  }
  const unmarked = kind === "marked" ? lines.findIndex((line) => !HEAD.test(line) || !TAIL.test(line)) : -1;
  return unmarked < 0 ? null : new Trouble("E-C775", { details: { line: unmarked + 1 } });
}

export function charactersOf(values) {
  return Object.values(values).reduce((sum, value) => sum + lengthOf(value), 0);
}

/** A sentence without its marks: {text, head: [start, end], tail: [start, end]}, in characters. */
export function unmarked(line) {
  const places = Object.entries({ head: HEAD.exec(line), tail: TAIL.exec(line) })
    .map(([role, found]) => ({ role, start: found.index, end: found.index + found[0].length }));
  const borders = places.flatMap(({ start, end }) => [start, end - 1]);
  const place = (at) => lengthOf(line.slice(0, at)) - borders.filter((border) => border < at).length;
  const text = [...Array(line.length).keys()].filter((at) => !borders.includes(at)).map((at) => line[at]).join("");
  return { text, ...Object.fromEntries(places.map(({ role, start, end }) => [role, [place(start), place(end)]])) };
}

const SETTINGS = [
  ["max_new_tokens", { type: "number", min: 1, max: 256, step: 1, value: 60 }],
  ["do_sample", { type: "checkbox" }],
  ["temperature", { type: "number", min: 0.1, max: 10, step: 0.1, value: 1 }],
  ["top_p", { type: "number", min: 0.05, max: 1, step: 0.05, value: 0.95 }],
  ["seed", { type: "number", min: 0, step: 1, value: 0 }],
];

/** The settings of writing, folded. */
export function settingNodes() {
  return h("details", { class: "settings" }, h("summary", {}, word("settings")),
    SETTINGS.map(([name, attributes]) => h("label", {}, h("span", {}, word(`set-${name}`)), h("input", { name: `set-${name}`, ...attributes }))));
}

/** What the settings say; those of sampling only where it is switched on. Null where a number is out of its range. */
export function settingsOf(form) {
  const control = (name) => form.elements[`set-${name}`];
  const wanted = control("do_sample").checked ? ["max_new_tokens", "temperature", "top_p", "seed"] : ["max_new_tokens"];
  if (!wanted.every((name) => control(name).reportValidity())) return null;
  const numbers = Object.fromEntries(wanted.map((name) => [name, control(name).valueAsNumber]));
  return { ...numbers, do_sample: control("do_sample").checked };
}
