// The page: connects, keeps what is told, shows it, and asks for what a person asks for.
import * as cameras from "/page/cameras.js";
import * as panels from "/page/panels.js";
import * as plot from "/page/plot.js";
import { all, append, forget, get, on, put } from "/page/store.js";

const { id, news } = panels;
const HISTORY = 600;
const ARMED = 3000; // ms in which a second press counts
const WAITS = [500, 1000, 2000, 3000]; // ms before it connects again
const episode = new URLSearchParams(location.search).get("episode") ?? "";
// Where a button changes something; elsewhere it is drawn quietly.
const USES = { engage: (mode) => mode === "HOLD", hold: (mode) => mode === "POLICY" || mode === "TELEOP", reset: (mode) => mode === "STOPPED" };
let socket = null, tries = 0;

// -- told -------------------------------------------------------------------------------------------------------
function connect() {
  const query = episode ? `?episode=${encodeURIComponent(episode)}` : "";
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket${query}`);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => { tries = 0; link(true); forget("scores"); });
  socket.addEventListener("message", ({ data }) => (typeof data === "string" ? told(JSON.parse(data)) : cameras.take(data)));
  socket.addEventListener("close", () => {
    link(false);
    setTimeout(connect, WAITS[Math.min(tries++, WAITS.length - 1)]);
  });
}

function told({ key, value }) {
  if (key === "rewound") { forget("scores", "hand_over"); cameras.clear(); return; }
  if (key === "scores") append(key, value, HISTORY); else put(key, value);
}

function link(on) {
  id("link").dataset.on = on;
  id("link").textContent = on ? (get("recording") ? "a recording" : "live") : "not connected";
}

on("robot", () => cameras.make(id("cameras"), get("robot").cameras));
on(["mode", "reason"], () => {
  const mode = get("mode") ?? "", reason = get("reason") ?? "";
  id("mode").dataset.mode = mode;
  id("mode-name").textContent = mode || "no arbiter";
  id("mode-reason").textContent = reason;
  for (const [button, use] of Object.entries(USES)) id(button).classList.toggle("idle", !use(mode));
  const asks = mode === "HOLD" && reason.startsWith("monitor:");
  id("ask").hidden = !asks;
  if (asks) id("ask-reason").textContent = `${reason.slice(8).trim()}.`;
  news(`${mode}: ${reason}`, mode === "STOPPED" ? "bad" : asks ? "warn" : "");
});
on(["instruction", "diagnostics/policy_node"], sentence);
on("scores", surprise);
on(["chunk", "diagnostics/policy_node", "diagnostics/arbiter_node"], panels.chunk);
on(["joints", "command", "robot"], panels.joints);
on(["ranges/policy_node", "ranges/arbiter_node", "knobs/policy_node", "knobs/arbiter_node", "diagnostics/policy_node"], () => panels.knobs(ask));
on("recorder", panels.recorder);
on("hand_over", () => news(`it asked to be held: ${get("hand_over")}`, "warn"));
on("diagnostics/policy_node", () => { const { level, message } = get("diagnostics/policy_node"); if (level) news(message, level > 1 ? "bad" : "warn"); });
on("diagnostics/arbiter_node", () => { const { level, message } = get("diagnostics/arbiter_node"); if (level) news(message, level > 1 ? "bad" : "warn"); });
on("episode", () => {
  const { number, task, state, reason, seconds } = get("episode");
  id("new-episode").hidden = false;
  if (state === "succeeded" || state === "failed") news(`scene ${number}, ${task}: ${state} after ${seconds} s, ${reason}`, state === "failed" ? "warn" : "");
});
on("recording", () => {
  const { name, seconds, labels } = get("recording");
  link(true);
  id("time").hidden = false;
  id("slider").max = seconds;
  document.body.dataset.recording = true;
  for (const part of document.querySelectorAll("[data-live]")) part.hidden = true;
  news(`${name}: ${labels.outcome ?? "not labelled"}`);
});
on("time", () => {
  const { at, plays } = get("time");
  if (document.activeElement !== id("slider") || plays) id("slider").value = at;
  id("clock").textContent = `${at.toFixed(1)} s`;
  id("play").textContent = plays ? "Pause" : "Play";
});

function sentence() {
  const words = get("instruction") ?? "", unknown = (get("diagnostics/policy_node")?.values.unknown_words ?? "").split(" ").filter(Boolean);
  const parts = words.split(/(\s+)/).map((word) => {
    if (!unknown.includes(word)) return document.createTextNode(word);
    const mark = document.createElement("mark");
    mark.textContent = word;
    mark.title = "a word it never saw";
    return mark;
  });
  id("said-words").replaceChildren(...(words ? parts : [document.createTextNode("nothing yet")]));
  id("unknown").hidden = !unknown.length;
  id("unknown").textContent = unknown.length ? `It never saw: ${unknown.join(", ")}` : "";
  if (words) remember(words);
}

function surprise() {
  const last = get("scores");
  plot.show(id("plot"), all("scores"));
  if (last?.level === undefined) {
    id("surprise-now").textContent = "not calibrated";
    id("surprise-words").textContent = "udvla monitor fit gives it a threshold; see docs/monitor.md";
    return;
  }
  id("surprise-now").textContent = `${last.level.toFixed(1)} of ${last.threshold.toFixed(1)}`;
  id("surprise-now").dataset.over = last.level > last.threshold;
  const most = Object.entries(last.surprises ?? {}).filter(([, v]) => v > 0.5).sort((a, b) => b[1] - a[1]).slice(0, 3);
  id("surprise-words").textContent = last.reason || most.map(([name, v]) => `${name.replaceAll("/", " ").replaceAll("_", " ")} ${v.toFixed(1)}`).join(" · ") || "as foreseen";
}

// -- asked ------------------------------------------------------------------------------------------------------
async function ask(what) {
  let said;
  try {
    const answer = await fetch("/act", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what) });
    said = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : { ok: false, message: await answer.text() };
  } catch { said = { ok: false, message: "the console does not answer; the arm goes on without it" }; }
  id("answer").dataset.ok = said.ok;
  id("answer").textContent = (said.ok ? "" : "refused: ") + said.message;
  if (!said.ok) news(`refused: ${said.message}`, "warn");
  return said;
}

for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => ask({ do: button.dataset.do }));
// What sets the arm free takes two presses.
for (const [name, what] of [["engage", "engage_policy"], ["reset", "reset"]]) {
  const button = id(name), label = button.innerHTML;
  let timer = 0;
  const disarm = () => { clearTimeout(timer); button.classList.remove("armed"); button.innerHTML = label; };
  button.addEventListener("click", () => {
    if (button.classList.contains("armed")) { disarm(); ask({ do: what }); return; }
    button.classList.add("armed");
    button.textContent = "Press again";
    id("answer").textContent = `${button.dataset.twice}: press again`;
    timer = setTimeout(disarm, ARMED);
  });
}
id("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = id("sentence").value.trim();
  if (words && (await ask({ say: words })).ok) id("sentence").value = "";
});

function stored(key, fallback) { try { return JSON.parse(localStorage.getItem(key)) ?? fallback; } catch { return fallback; } }
function store(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* a private window */ } }

function remember(words) {
  const kept = stored("recent", []);
  if (kept[0] !== words) store("recent", [words, ...kept.filter((one) => one !== words)].slice(0, 12));
  const listed = stored("recent", []);
  if (id("recent").children.length !== listed.length || id("recent").firstChild?.value !== listed[0]) {
    id("recent").replaceChildren(...listed.map((one) => new Option(one, one)));
  }
}

// -- the page itself --------------------------------------------------------------------------------------------
function dress() {
  const theme = stored("theme", ""), large = stored("large", false);
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  document.documentElement.dataset.large = large;
  id("large").setAttribute("aria-pressed", large);
  plot.redraw(id("plot"), all("scores"));
}
const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";
id("theme").addEventListener("click", () => { store("theme", isDark() ? "light" : "dark"); dress(); });
id("large").addEventListener("click", () => { store("large", !stored("large", false)); dress(); });
id("slider").addEventListener("input", () => socket?.send(JSON.stringify({ seek: Number(id("slider").value), play: false })));
id("play").addEventListener("click", () => {
  const { at = 0, plays = true } = get("time") ?? {};
  const ended = !plays || at < Number(id("slider").max) - 0.1 ? {} : { seek: 0 };
  socket?.send(JSON.stringify({ play: ended.seek === 0 || !plays, ...ended }));
});
id("episodes-card").addEventListener("toggle", () => { if (id("episodes-card").open) panels.episodes(); });
const KEYS = { h: "hold", s: "stop", e: "engage", r: "reset", t: "theme", b: "large" };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "/") { event.preventDefault(); id("sentence").focus(); return; }
  const button = id(KEYS[event.key.toLowerCase()] ?? "");
  if (button) { event.preventDefault(); button.click(); }
});

dress();
panels.recorder();
connect();
