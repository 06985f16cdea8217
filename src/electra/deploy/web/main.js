// The page: which models there are, the form of the chosen one, its result.
//
// In: /v1/models. Out: the page. State is one object; what changes it calls the function that draws the part that depends on it.
// Nothing is sent before the user presses Run, and one request runs at a time.

import { ask, hasKey, keepKey, stream, Trouble } from "./api.js";
import { h } from "./dom.js";
import { examplesOf } from "./examples.js";
import { charactersOf, fieldNodes, settingNodes, settingsOf, troubleIn } from "./fields.js";
import { readLink, writeLink } from "./link.js";
import { requestNode } from "./request.js";
import { isKnown, modesOf, viewOf } from "./views.js";
import { chooseLanguage, currentLanguage, explained, LANGUAGES, number, taskName, time, word } from "./words.js";

const at = (id) => document.getElementById(id);
/** `values` by mode: what was typed stays when another model of the same task is chosen; `last`: {draw} of the result. */
const state = { models: [], model: null, mode: "", values: {}, memory: {}, last: null, running: null, status: ["nothing"] };

// -- parts of the page ----------------------------------------------------------------------------------------------------

function drawWords() {
  document.documentElement.lang = currentLanguage() === "zh" ? "zh-Hans" : "en";
  const words = { subtitle: "subtitle", skip: "skip", privacy: "privacy", "api-link": "api", "key-label": "key-label", "key-save": "key-save",
    "key-hint": "key-hint", "input-title": "input", "result-title": "result" };
  for (const [id, key] of Object.entries(words)) at(id).textContent = word(key);
  at("key-button").textContent = word(hasKey() ? "key-set" : "key");
  at("languages").setAttribute("aria-label", word("languages"));
  at("languages").replaceChildren(...Object.entries(LANGUAGES).map(([name, label]) => h("button", {
    type: "button", lang: name, "aria-pressed": String(name === currentLanguage()), on: { click: () => inLanguage(name) },
  }, label)));
}

function inLanguage(name) {
  chooseLanguage(name);
  draw();
  at("languages").querySelector(`[lang=${name}]`).focus();
}

function draw() {
  drawWords();
  drawChoices();
  drawForm();
  drawResult();
}

/** Radio buttons that look like chips; whoever moves through them with arrow keys keeps the focus. */
function drawChips(id, legend, options, chosen, choose) {
  const focused = at(id).contains(document.activeElement);
  at(id).hidden = options.length === 0;
  at(id).querySelector("legend").textContent = word(legend);
  at(id).querySelector(".chips").replaceChildren(...options.map(({ value, label, note = null }) => h("label", { class: "chip" },
    h("input", { type: "radio", name: id, value, checked: value === chosen, on: { change: () => choose(value) } }),
    h("span", {}, label, note ? h("small", {}, note) : null))));
  if (focused) at(id).querySelector("input:checked")?.focus();
}

function drawChoices() {
  const noteOf = (model) => (model.ready === false ? word("not-ready") : modesOf(model).slice(0, 1).map(taskName)[0]);
  drawChips("models", "models", state.models.map((model) => ({ value: model.name, label: model.name, note: noteOf(model) })), state.model?.name,
    (name) => choose(state.models.find((model) => model.name === name)));
  const modes = state.model ? modesOf(state.model) : [];
  drawChips("modes", "modes", modes.length > 1 ? modes.map((mode) => ({ value: mode, label: taskName(mode) })) : [], state.mode,
    (mode) => choose(state.model, mode));
  at("about").textContent = state.model ? word(`about-${isKnown(state.mode) ? state.mode : "other"}`) : "";
}

function choose(model, mode = modesOf(model)[0] ?? "") {
  abandon();
  Object.assign(state, { model, mode, memory: {}, last: null, status: ["nothing"] });
  showTrouble(null);
  drawChoices();
  drawForm();
  drawResult();
}

const values = () => (state.values[state.mode] ??= {});
const fields = () => viewOf(state.mode).fields(state.model);

function drawForm() {
  const form = at("form");
  at("examples").replaceChildren();
  form.replaceChildren();
  if (!state.model) return;
  at("examples").setAttribute("aria-label", word("examples"));
  const shown = isKnown(state.mode) ? examplesOf(state.mode, state.model, currentLanguage()) : [];
  at("examples").replaceChildren(...shown.map(([language, label, example]) => h("button", {
    type: "button", class: "example", lang: language, on: { click: () => put(example) },
  }, label)));
  const count = h("span", { class: "hint", id: "count" });
  form.replaceChildren(
    ...fieldNodes(fields(), values(), (name, value) => {
      values()[name] = value;
      drawCount();
    }),
    viewOf(state.mode).streams ? settingNodes() : "",
    h("div", { class: "actions" },
      h("button", { type: "submit", class: "main", id: "run" }, word("run")),
      h("button", { type: "button", id: "stop", hidden: !state.running, on: { click: stop } }, word("stop")),
      h("button", { type: "button", class: "quiet", id: "link", on: { click: copyLink } }, word("link")),
      count));
  drawCount();
}

function drawCount() {
  at("count").textContent = word("characters", { count: number(charactersOf(sent())) });
}

/** The values of the fields that the form shows. */
function sent() {
  return Object.fromEntries(fields().map(({ name }) => [name, values()[name] ?? ""]));
}

/** Put values into the form, empty where none is given. */
function put(given) {
  state.values[state.mode] = { ...Object.fromEntries(fields().map(({ name }) => [name, ""])), ...given };
  for (const { name } of fields()) at(`field-${name}`).value = values()[name];
  showTrouble(null);
  drawCount();
}

function drawResult() {
  say(...state.status);
  at("result").replaceChildren(...(state.last ? [state.last.draw()].flat() : []));
}

function say(key, blanks) {
  state.status = [key, blanks];
  const text = typeof key === "function" ? key() : word(key, blanks);
  at("status").textContent = text;
}

function showTrouble(trouble, field = null) {
  for (const node of document.querySelectorAll("[aria-invalid]")) node.removeAttribute("aria-invalid");
  const box = at("trouble");
  box.hidden = trouble === null;
  if (!trouble) return box.replaceChildren();
  const { message, mend } = explained(trouble);
  box.replaceChildren(h("p", {}, h("code", {}, trouble.code), " ", message),
    trouble.path ? h("p", {}, word("place", { path: trouble.path })) : "", mend ? h("p", {}, word("mend", { mend })) : "");
  const control = field && at(`field-${field}`);
  control?.setAttribute("aria-invalid", "true");
  control?.setAttribute("aria-describedby", "trouble");
  control?.focus();
  return undefined;
}

function fail(trouble) {
  showTrouble(trouble instanceof Trouble ? trouble : new Trouble("E-C774"));
  if (!(trouble instanceof Trouble)) console.error(trouble);
  if (trouble.status === 401) openKey();
}

// -- asking ---------------------------------------------------------------------------------------------------------------

function stop() {
  state.running?.abort();
}

/** End the request that runs, whose result nobody wants any more. */
function abandon() {
  stop();
  state.running = null;
  at("result").removeAttribute("aria-busy");
}

/** Do something that can be stopped; what goes wrong is shown. */
async function busy(key, work) {
  abandon();
  const running = new AbortController();
  state.running = running;
  showTrouble(null);
  say(key);
  at("stop").hidden = false;
  at("result").setAttribute("aria-busy", "true");
  const onRetry = ({ seconds, ...rest }) => say("retry", { seconds: number(seconds, 1), ...rest });
  try {
    await work({ signal: running.signal, onRetry });
  } catch (error) {
    if (state.running !== running) return;
    say(running.signal.aborted ? "stopped" : "nothing");
    if (!running.signal.aborted) fail(error);
  } finally {
    if (state.running === running) {
      state.running = null;
      at("stop").hidden = true;
      at("result").removeAttribute("aria-busy");
    }
  }
}

const pathOf = (verb) => `v1/${encodeURIComponent(state.model.name)}/${verb}`;

function run(shown = null) {
  const found = troubleIn(fields(), sent());
  if (found) return showTrouble(found.trouble, found.field);
  return viewOf(state.mode).streams ? write() : predict(shown);
}

function predict(shown) {
  const { model, mode } = state;
  const view = viewOf(mode);
  const given = sent();
  const path = pathOf("predict");
  const body = { ...view.body(given, model), task: mode };
  return busy("running", async (options) => {
    const { reply, milliseconds } = await ask(path, body, options);
    const context = contextOf(model, mode, given);
    state.last = { draw: () => [view.show(reply.predictions, context), figures(reply, milliseconds), requestNode(path, body, reply)] };
    say(() => view.summary(reply.predictions, context));
    drawResult();
    shown?.(at("result"));
  });
}

/** What views may do; see views.js. */
function contextOf(model, mode, given) {
  return {
    model, mode, values: given, modes: modesOf(model), memory: state.memory, run, fail,
    put: (name, value) => put({ ...values(), [name]: value }),
    ask: (body) => ask(`v1/${encodeURIComponent(model.name)}/predict`, body),
  };
}

function write() {
  const { model, mode } = state;
  const view = viewOf(mode);
  const settings = settingsOf(at("form"));
  if (!settings) return undefined;
  const given = sent();
  const path = pathOf("generate");
  const body = view.body(given, model, settings);
  const begin = performance.now();
  const shown = view.begin(given, model);
  state.last = { draw: () => shown.node };
  return busy("writing", async (options) => {
    at("result").replaceChildren(shown.node);
    let first = null;
    try {
      for await (const event of stream(path, body, options)) {
        first ??= performance.now() - begin;
        if (!event.done) shown.add(event.text ?? "");
        else {
          const reply = { predictions: [event], ...event };
          const whole = performance.now() - begin;
          state.last = { draw: () => [shown.node, figures(reply, whole, first), requestNode(path, body, event)] };
          say(() => view.summary(shown.written.textContent, event));
          drawResult();
        }
      }
    } finally {
      shown.node.removeAttribute("aria-busy");
    }
  });
}

/** Time and truncation. */
function figures({ milliseconds, predictions }, whole, first = null) {
  const cut = predictions.reduce((sum, { truncated = 0 }) => sum + truncated, 0);
  const said = [first === null ? null : word("first", { time: time(first) }), milliseconds === undefined ? null : word("server", { time: time(milliseconds) }),
    word("whole", { time: time(whole) })];
  return h("p", { class: "figures" }, said.filter(Boolean).join(" · "), " · ",
    h("span", { class: cut ? "warning" : null }, cut ? word("cut-some", { count: number(cut) }) : word("cut-none")));
}

// -- link and key ---------------------------------------------------------------------------------------------------------

async function copyLink() {
  const address = writeLink(state.model.name, state.mode, sent());
  try {
    await navigator.clipboard.writeText(address);
    say("link-done");
  } catch {
    say("link-shown");
  }
}

/** Restore what the address says; without that, the first model is chosen if none is. */
function followLink() {
  const link = readLink();
  const model = state.models.find(({ name }) => name === link?.model);
  if (!model) {
    if (!state.model) choose(state.models[0]);
    if (link) showTrouble(new Trouble("E-C776", { details: { name: link.model } }));
    return;
  }
  choose(model, modesOf(model).includes(link.mode) ? link.mode : undefined);
  const names = fields().map(({ name }) => name);
  put(Object.fromEntries(Object.entries(link.values).filter(([name]) => names.includes(name))));
  say("restored");
}

function openKey(open = true) {
  at("key-form").hidden = !open;
  at("key-button").setAttribute("aria-expanded", String(open));
  if (open) at("key-field").focus();
}

function takeKey(event) {
  event.preventDefault();
  try {
    keepKey(at("key-field").value.trim());
  } catch (trouble) {
    return fail(trouble);
  }
  at("key-field").value = "";
  openKey(false);
  drawWords();
  at("key-button").focus();
  showTrouble(null);
  return state.models.length ? undefined : loadModels();
}

async function loadModels() {
  say("loading");
  try {
    const { reply } = await ask("v1/models");
    state.models = reply.models;
  } catch (trouble) {
    at("status").textContent = "";
    return fail(trouble);
  }
  if (state.models.length) followLink();
  return undefined;
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
at("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
});
at("key-form").addEventListener("submit", takeKey);
at("key-button").addEventListener("click", () => openKey(at("key-form").hidden));
window.addEventListener("hashchange", followLink);
drawWords();
loadModels();
