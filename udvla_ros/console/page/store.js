// What was told, by key, and who wants to know when it changes. Changes are shown together, at most once a frame.
const values = new Map();
const series = new Map();
const listeners = new Map();
const changed = new Set();
let scheduled = false;

export const get = (key) => values.get(key);
export const all = (key) => series.get(key) ?? [];

export function on(keys, act) {
  for (const key of [].concat(keys)) listeners.set(key, [...(listeners.get(key) ?? []), act]);
}

export function put(key, value) {
  values.set(key, value);
  changed.add(key);
  if (!scheduled) { scheduled = true; requestAnimationFrame(show); }
}

export function append(key, value, most) {
  const list = all(key);
  list.push(value);
  if (list.length > most) list.splice(0, list.length - most);
  series.set(key, list);
  put(key, value);
}

export function forget(...keys) {
  for (const key of keys) { values.delete(key); series.delete(key); }
}

function show() {
  scheduled = false;
  const acts = new Set([...changed].flatMap((key) => listeners.get(key) ?? []));
  changed.clear();
  for (const act of acts) act();
}
