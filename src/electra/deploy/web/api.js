// The way to the server: same origin, JSON, and one kind of error.
//
// In: a path and a body. Out: the reply and the time it took, or a `Trouble` with code, message, place and mend. A server that is
// full (429) is asked again after the time it names, a few times, and the caller is told. The key that a user enters lives in this
// tab's sessionStorage and goes into one header.

const ATTEMPTS = 5;
const LONGEST_WAIT = 30; // seconds
const KEY = "electra-key";

/** What went wrong. Those of this page have a code alone, which words.js explains; `details` fill its blanks. */
export class Trouble extends Error {
  constructor(code, { message = "", path = "", mend = "", status = 0, details = {} } = {}) {
    super(message || code);
    Object.assign(this, { code, said: message, path, mend, status, details });
  }
}

let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // storage is switched off: the key lives in memory
  }
}

export function hasKey() {
  return key !== "";
}

/** Take a key, or none. Raises Trouble E-C777 for one that no header can carry. */
export function keepKey(value) {
  if (!/^[\x21-\x7e]*$/.test(value)) throw new Trouble("E-C777");
  key = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // in memory, then
  }
}

/** The reply to a body, or without one to GET, as {reply, milliseconds}. `onRetry({seconds, attempt, attempts})` before each wait. */
export async function ask(path, body, { signal, onRetry } = {}) {
  const begin = performance.now();
  const response = await send(path, body, signal, onRetry);
  const reply = await jsonOf(response, signal);
  return { reply, milliseconds: performance.now() - begin };
}

/** The events of a streamed reply, each an object; ends after the one that says `done`. */
export async function* stream(path, body, { signal, onRetry } = {}) {
  const response = await send(path, body, signal, onRetry);
  for await (const event of eventsOf(response, signal)) {
    if (event.error) throw fromServer(event.error, response.status);
    yield event;
    if (event.done) return;
  }
  throw new Trouble("E-C774");
}

async function* eventsOf(response, signal) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value ?? new Uint8Array(), { stream: !done });
      const lines = rest.split(/\r?\n/);
      rest = done ? "" : lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:") && line.slice(5).trim() !== "[DONE]") yield parsed(line.slice(5));
      }
      if (done) return;
    }
  } catch (error) {
    throw error instanceof Trouble || signal?.aborted ? error : new Trouble("E-C773");
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(path, body, signal, onRetry) {
  for (let attempt = 1; ; attempt += 1) {
    const response = await once(path, body, signal);
    if (response.ok) return response;
    if (response.status !== 429 || attempt === ATTEMPTS) throw await troubleOf(response);
    const seconds = waitOf(response, attempt);
    onRetry?.({ seconds, attempt, attempts: ATTEMPTS - 1 });
    await pause(seconds, signal);
  }
}

async function once(path, body, signal) {
  const headers = { Accept: "application/json, text/event-stream" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(new URL(path, document.baseURI), {
      method: body === undefined ? "GET" : "POST", headers, body: body && JSON.stringify(body), signal,
      credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (error) {
    throw signal?.aborted ? error : new Trouble("E-C773");
  }
}

async function jsonOf(response, signal) {
  try {
    return await response.json();
  } catch (error) {
    throw signal?.aborted ? error : new Trouble("E-C774");
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Trouble("E-C774");
  }
}

async function troubleOf(response) {
  let said;
  try {
    said = (await response.json()).error;
  } catch {
    // another server answered, a proxy say
  }
  return said ? fromServer(said, response.status) : new Trouble(`HTTP ${response.status}`, { status: response.status, message: response.statusText || "-" });
}

function fromServer({ code, message, path, mend }, status) {
  return new Trouble(code ?? `HTTP ${status}`, { message, path: path ?? "", mend: mend ?? "", status });
}

function waitOf(response, attempt) {
  const asked = Number(response.headers.get("Retry-After") || Number.NaN);
  return Math.min(LONGEST_WAIT, Number.isFinite(asked) && asked >= 0 ? asked : 2 ** (attempt - 1));
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
