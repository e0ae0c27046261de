// Each camera: what it sees now, what was foreseen, and, when its time has come, how the two differ.
const WAIT = 0.06; // s by which a picture may come before the time a future is for
const KEPT = 12; // futures that wait
const PAST = 30; // live pictures that are kept for futures that come late
const FAINT = 12, STRONG = 110; // of 255: from where to where a difference is coloured: below, it is the codec's

const cameras = new Map();

export function make(root, names) {
  root.replaceChildren();
  cameras.clear();
  for (const name of names) {
    const box = document.createElement("article");
    box.className = "camera";
    box.setAttribute("aria-label", `camera ${name}`);
    const parts = { futures: [], past: [] };
    for (const [kind, title] of [["live", name], ["foreseen", "foreseen"], ["difference", "difference"]]) {
      const figure = document.createElement("figure");
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${name}: ${kind}`);
      const caption = document.createElement("figcaption");
      const bold = document.createElement("b"), note = document.createElement("span");
      bold.textContent = title;
      caption.append(bold, note);
      figure.append(canvas, caption);
      box.append(figure);
      parts[kind] = { canvas, note };
    }
    cameras.set(name, parts);
    root.append(box);
  }
}

export async function take(buffer) {
  const view = new DataView(buffer);
  const predicted = view.getUint8(0) === 1, length = view.getUint8(1), stamp = view.getFloat64(2, true);
  const name = new TextDecoder().decode(new Uint8Array(buffer, 10, length));
  const camera = cameras.get(name);
  if (!camera) return;
  let picture;
  try { picture = await createImageBitmap(new Blob([new Uint8Array(buffer, 10 + length)], { type: "image/jpeg" })); }
  catch { return; } // a picture cut short is not shown
  if (predicted) future(camera, picture, stamp); else live(camera, picture, stamp);
}

export function clear() {
  for (const camera of cameras.values()) { camera.futures = []; camera.past = []; camera.stamp = undefined; }
}

function future(camera, picture, stamp) {
  if (camera.futures.length && stamp < camera.futures.at(-1).stamp - 1) camera.futures = []; // the clock went back
  camera.futures.push({ picture, stamp });
  if (camera.futures.length > KEPT) camera.futures.shift();
  draw(camera.foreseen.canvas, picture);
  tellFuture(camera);
  if (camera.past.length) compare(camera);
}

function tellFuture(camera) {
  const last = camera.futures.at(-1);
  if (!last || camera.stamp === undefined) return;
  const ahead = last.stamp - camera.stamp;
  camera.foreseen.note.textContent = ahead > 0.05 ? `in ${ahead.toFixed(1)} s` : ahead > -2 ? "now" : "no newer one";
}

function live(camera, picture, stamp) {
  if (camera.stamp !== undefined && stamp < camera.stamp - 1) camera.futures = camera.past = [];
  camera.stamp = stamp;
  camera.past = [...camera.past.slice(1 - PAST), { picture, stamp }];
  draw(camera.live.canvas, picture);
  camera.live.note.textContent = clock(stamp);
  tellFuture(camera);
  compare(camera);
}

// Hold the newest future whose time has come against the picture of that time, which may have come before it.
function compare(camera) {
  const due = camera.futures.findLast((one) => one.stamp <= camera.stamp + WAIT);
  if (!due || due.shown) return;
  const apart = (one) => Math.abs(one.stamp - due.stamp);
  const seen = camera.past.reduce((best, one) => (apart(one) < apart(best) ? one : best));
  if (apart(seen) > 0.15) return;
  due.shown = true;
  const share = difference(camera.difference.canvas, seen.picture, due.picture);
  camera.difference.note.textContent = `${(100 * share).toFixed(1)} %`;
}

const clock = (stamp) => new Date(stamp * 1000).toLocaleTimeString([], { hour12: false });

function draw(canvas, picture) {
  fit(canvas, picture.width, picture.height);
  canvas.getContext("2d").drawImage(picture, 0, 0);
}

function fit(canvas, width, height) {
  if (canvas.width === width && canvas.height === height) return;
  canvas.width = width; canvas.height = height;
}

// Draw what is seen in grey and what is not as foreseen in red; return the mean difference as a share.
function difference(canvas, seen, foreseen) {
  const { width, height } = foreseen;
  const pixels = [seen, foreseen].map((picture) => {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  });
  const [a, b] = pixels.map((one) => one.data);
  const out = new ImageData(width, height);
  let sum = 0;
  for (let i = 0; i < a.length; i += 4) {
    const apart = (Math.abs(a[i] - b[i]) + Math.abs(a[i + 1] - b[i + 1]) + Math.abs(a[i + 2] - b[i + 2])) / 3;
    sum += apart;
    const grey = 0.35 * (0.3 * a[i] + 0.59 * a[i + 1] + 0.11 * a[i + 2]) + 20, heat = Math.min(1, Math.max(0, (apart - FAINT) / (STRONG - FAINT)));
    out.data[i] = grey + (255 - grey) * heat;
    out.data[i + 1] = grey + (170 * heat * heat - grey * heat);
    out.data[i + 2] = grey * (1 - heat);
    out.data[i + 3] = 255;
  }
  fit(canvas, width, height);
  canvas.getContext("2d").putImageData(out, 0, 0);
  return sum / (a.length / 4) / 255;
}
