// A link that restores the input. The input stands behind the #, which browsers do not send; it is written when the user asks.

/** What the address says: {model, mode, values}, or null. */
export function readLink() {
  const said = new URLSearchParams(location.hash.slice(1));
  const model = said.get("model");
  if (!model) return null;
  const values = Object.fromEntries([...said].filter(([name]) => name !== "model" && name !== "task"));
  return { model, mode: said.get("task") ?? "", values };
}

/** Put the input into the address and return that. */
export function writeLink(model, mode, values) {
  const filled = Object.entries(values).filter(([, value]) => value !== "");
  const said = new URLSearchParams([["model", model], ["task", mode], ...filled]);
  history.replaceState(null, "", `#${said}`);
  return location.href;
}
