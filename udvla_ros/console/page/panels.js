// The panels of text: chunk, joints, knobs, recorder, news, episodes.
import { get } from "/page/store.js";

export const id = (name) => document.getElementById(name);
const ms = (text) => (text === undefined ? "–" : `${Number(text).toFixed(0)} ms`);

export function facts(root, rows) {
  const parts = [];
  for (const [name, value] of rows) {
    const term = document.createElement("dt"), told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value;
    told.classList.toggle("tall", value.length > 32);
    parts.push(term, told);
  }
  root.replaceChildren(...parts);
}

export function chunk() {
  const said = get("chunk"), policy = get("diagnostics/policy_node")?.values ?? {}, arm = get("diagnostics/arbiter_node")?.values ?? {};
  const timings = said?.timings_ms ?? {};
  const refused = Object.entries(policy).filter(([name]) => name.startsWith("refused/")).map(([name, count]) => `${name.slice(8)} ${count}`);
  const helped = Object.entries(arm).filter(([name]) => /^(refused|intervention)\//.test(name)).map(([name, count]) => `${name.replace("/", ": ")} ${count}`);
  facts(id("chunk"), [
    ["number", `${said?.chunk ?? "–"}`],
    ["delay, picture to motion", ms(timings.frame_to_trajectory)],
    ["thinking", ms(timings.total)],
    ["steps gone when it came", `${said?.played_steps ?? "–"}`],
    ["median of late", ms(policy["frame_to_trajectory_ms_p50"])],
    ["policy refused", refused.join(", ") || "nothing"],
    ["arbiter", helped.join(", ") || "no refusal, no intervention"],
    ["last refusal", policy.last_refusal || arm.last_refusal || "none"],
  ]);
}

export function joints() {
  const limits = get("robot")?.limits ?? {}, measured = get("joints") ?? {}, commanded = get("command") ?? {};
  const root = id("joints");
  for (const [name, [low, high]] of Object.entries(limits)) {
    let row = root.querySelector(`[data-joint="${CSS.escape(name)}"]`);
    if (!row) {
      row = document.createElement("div");
      row.className = "joint";
      row.dataset.joint = name;
      const label = document.createElement("span"), bar = document.createElement("span"), told = document.createElement("output");
      label.className = "name"; label.title = name; label.textContent = name === get("robot").gripper ? "gripper" : name.replace(/_joint$/, "").replaceAll("_", " ");
      bar.className = "bar"; bar.append(document.createElement("i"), document.createElement("i"));
      bar.lastChild.className = "commanded";
      row.append(label, bar, told);
      root.append(row);
    }
    const place = (q) => `${Math.min(100, Math.max(0, (100 * (q - low)) / (high - low)))}%`;
    const [one, two] = row.querySelectorAll("i");
    one.hidden = measured[name] === undefined; two.hidden = commanded[name] === undefined;
    one.style.left = place(measured[name] ?? low); two.style.left = place(commanded[name] ?? low);
    row.lastChild.textContent = measured[name]?.toFixed(2) ?? "–";
  }
}

export function knobs(act) {
  for (const node of ["policy_node", "arbiter_node"]) {
    const ranges = get(`ranges/${node}`), values = get(`knobs/${node}`);
    if (!ranges || !values) continue;
    for (const range of ranges) knob(node, range, values[range.name], act);
  }
  const policy = get("diagnostics/policy_node")?.values ?? {};
  const before = policy["turned/frame_to_trajectory_ms_p50"] ?? policy["turned/total_ms_p50"];
  id("turned").textContent = policy.turned ? `${policy.turned}: delay ${before ? `${before} ms (median)` : "is being measured"}` : "";
}

function knob(node, range, value, act) {
  const key = `knob-${node}-${range.name}`;
  let field = id(key);
  if (!field) {
    const row = document.createElement("div"), label = document.createElement("label"), words = document.createElement("small");
    row.className = "knob";
    label.htmlFor = key; label.textContent = range.name.replaceAll("_", " ");
    words.textContent = range.words; words.id = `${key}-words`;
    field = document.createElement(range.choices.length ? "select" : "input");
    if (range.choices.length) field.append(...range.choices.map((one) => new Option(one, one)));
    else if (range.type === 1) field.type = "checkbox";
    else if (range.type === 2 || range.type === 3) {
      Object.assign(field, { type: "number", step: range.type === 2 ? 1 : 0.05 });
      if (range.low !== null) Object.assign(field, { min: range.low, max: range.high });
    }
    field.id = key;
    field.setAttribute("aria-describedby", words.id);
    const read = { 1: () => field.checked, 2: () => parseInt(field.value, 10), 3: () => parseFloat(field.value) };
    field.addEventListener("change", () => {
      const to = (read[range.type] ?? (() => field.value))();
      if (!Number.isNaN(to)) act({ set: range.name, of: node, to });
    });
    row.append(label, field, words);
    id("knobs").append(row);
  }
  if (document.activeElement === field) return; // not while somebody types
  if (range.type === 1) field.checked = value; else field.value = range.type === 3 ? Number(value.toFixed(4)) : value;
}

export function recorder() {
  const said = get("recorder");
  id("recorder").textContent = said ? [said.state?.toLowerCase(), said.last?.outcome, said.error].filter(Boolean).join(", ") : "no recorder runs";
  for (const name of ["record", "success", "failure", "discard", "snapshot"]) document.querySelector(`[data-do="${name}"]`).disabled = !said;
}

let lastNews = "";
export function news(text, level = "") {
  if (!text || text === lastNews) return;
  lastNews = text;
  const row = document.createElement("li"), time = document.createElement("time"), words = document.createElement("span");
  row.dataset.level = level;
  time.textContent = new Date().toLocaleTimeString([], { hour12: false });
  words.textContent = text;
  row.append(time, words);
  id("news").prepend(row);
  while (id("news").children.length > 60) id("news").lastChild.remove();
}

export async function episodes() {
  const found = await (await fetch("/episodes")).json();
  const signs = { success: "✓", failure: "✕" };
  id("episodes").replaceChildren(...found.episodes.map((one) => {
    const row = document.createElement("li"), link = document.createElement("a");
    link.href = `/?episode=${encodeURIComponent(one.name)}`;
    for (const text of [signs[one.outcome] ?? "·", one.instruction || one.name, `${one.seconds.toFixed(0)} s`]) {
      const part = document.createElement("span");
      part.textContent = text;
      link.append(part);
    }
    link.title = `${one.name}: ${one.outcome || "not labelled"}${one.reason ? `, ${one.reason}` : ""}`;
    row.append(link);
    return row;
  }));
  if (!found.episodes.length) id("episodes").textContent = "none yet";
  return found;
}
