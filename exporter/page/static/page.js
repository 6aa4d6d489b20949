// Keeps a page that the server painted up to date: parts of HTML by server-sent events, charts by uPlot.
// The server escapes and words everything; nothing is formatted here but what a chart's axes and cursor show.
"use strict";
(() => {
// Not relative to the document: its address may hold a password, with which nothing may be fetched.
const here = path => new URL(path, location.origin + location.pathname);
const byId = id => document.getElementById(id);
const QUIET_MS = 25000;   // the server says something every 10 s; longer silence is a lost connection
const PAUSE_MS = 3000;
const HEAT_MS = 10000;

// Parts: change what differs and leave the rest, so that focus, open details and selections stay.

function fit(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !kept(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !kept(old, name)) old.setAttribute(name, value);
  }
  fitChildren(old, fresh);
}

const kept = (node, name) => (node.tagName === "DETAILS" && name === "open") || (node.tagName === "BUTTON" && name === "hidden");
const isSame = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");

function fitChildren(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, i) => {
    let at = old.childNodes[i];
    if (node.id && (!at || at.id !== node.id)) {
      const moved = [...old.children].find(child => child.id === node.id);
      if (moved) { old.insertBefore(moved, at || null); at = moved; }
    }
    if (!at) old.append(node);
    else if (isSame(at, node)) fit(at, node);
    else if (node.id && at.id) old.insertBefore(node, at);
    else at.replaceWith(node);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

function put(place, html) {
  if (!place) return;
  const fresh = place.cloneNode(false);
  fresh.innerHTML = html;
  fitChildren(place, fresh);
  showCopyButtons(place);
}

function take(parts) {
  for (const [name, html] of Object.entries(parts)) {
    if (name === "chart") drawChart(JSON.parse(html));
    else if (name === "histograms") offer(JSON.parse(html));
    else if (name === "title") document.title = html;
    else if (name !== "at") put(byId(name === "state" ? "part-state" : name), html);
  }
  heard(parts.at);
}

// The stream of parts.

let source = null, quiet = 0, retry = 0, isPaused = false;

function mode(name, text) {
  if (byId("live").dataset.mode !== name) byId("live").dataset.mode = name;
  byId("live-text").textContent = text;
}

let newest = "";
function heard(at) {
  if (at) newest = at;
  clearTimeout(quiet);
  quiet = setTimeout(lost, QUIET_MS);
  mode("live", `live, ${newest}`);
}

function lost() {
  close();
  mode("lost", `✕ the exporter does not answer; numbers ${newest || "are those of the start"}`);
  retry = setTimeout(open, PAUSE_MS);
}

function close() {
  clearTimeout(quiet);
  clearTimeout(retry);
  if (source) source.close();
  source = null;
}

function open() {
  close();
  if (isPaused) return;
  source = new EventSource(here("api/live"));
  source.addEventListener("parts", event => take(JSON.parse(event.data)));
  source.addEventListener("still", () => heard());
  source.onerror = lost;
}

function togglePause() {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  byId("pause").textContent = isPaused ? "Go on" : "Pause";
  if (isPaused) { close(); mode("paused", `paused, ${newest}`); } else { open(); askHeat(); }
}

// Copying SQL.

function showCopyButtons(place) {
  for (const button of place.querySelectorAll("button.copy[hidden]")) button.hidden = false;
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  const range = document.createRange();
  range.selectNodeContents(code);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText(code.textContent);
    byId("said").textContent = "SQL copied";
    button.textContent = "Copied";
  } catch {
    byId("said").textContent = "SQL selected: copy it with the keyboard";
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy SQL"; }, 2000);
}

// Charts. Colours come from the stylesheet, so that both themes have theirs.

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const three = v => v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1).replace(/\.0$/, "") : +v.toPrecision(2) + "";
const short = v => v == null ? "–" : v >= 1e9 ? three(v / 1e9) + " G" : v >= 1e6 ? three(v / 1e6) + " M" : v >= 1e4 ? three(v / 1e3) + " k" : three(v);
const seconds = v => v == null ? "–" : v === 0 ? "0 s" : v >= 3600 ? three(v / 3600) + " h" : v >= 60 ? three(v / 60) + " min" : v >= 1 ? three(v) + " s" : v >= 1e-3 ? three(v * 1e3) + " ms" : v >= 1e-6 ? three(v * 1e6) + " µs" : three(v * 1e9) + " ns";
const bytes = v => v == null ? "–" : v >= 2 ** 30 ? three(v / 2 ** 30) + " GiB" : v >= 2 ** 20 ? three(v / 2 ** 20) + " MiB" : v >= 1024 ? three(v / 1024) + " KiB" : three(v) + " B";
const wording = unit => unit === "seconds" ? seconds : unit === "bytes" ? bytes : short;
const utc = ts => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC");
const DASHES = [[], [6, 3], [2, 3]];   // lines are told apart by these as well as by colour
const clock = ts => ts == null ? "–" : new Date(ts * 1e3).toISOString().slice(11, 19);

const PADDING = [null, 32, null, null];   // right of the last instant, for the half of its label that lies beyond it

function axis(more) {
  return { stroke: colour("--soft"), grid: { stroke: colour("--hair"), width: 1 }, ticks: { stroke: colour("--hair"), size: 4 }, font: "12px system-ui, sans-serif", ...more };
}

function axes(words, more) {
  return [axis({ space: 64, size: 32, values: [
    [86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
    [3600, "{HH}:{mm}", "\n{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
    [60, "{HH}:{mm}", null, null, null, null, null, null, 1],
    [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
  ] }), axis({ size: 62, values: (_, splits) => splits.map(v => v == null ? "" : words(v)), ...more })];
}

const drawn = {};   // place -> {plot, key}

function draw(place, key, options, data) {
  const box = byId(place), old = drawn[place];
  if (old && old.key === key) {
    old.plot.setData(data);
    return;
  }
  if (old) old.plot.destroy();
  box.replaceChildren();
  const hooks = { ...options.hooks, setCursor: [newestValues], setData: [newestValues] };
  const cursor = { y: false, points: { size: 7 } };
  const markers = { width: 3, dash: (u, i) => ["solid", "dashed", "dotted"][DASHES.indexOf(u.series[i].dash)] || "solid", fill: () => "transparent" };
  const plot = new uPlot({ width: box.clientWidth, padding: PADDING, tzDate: utc, cursor, legend: { markers }, ...options, hooks }, data, box);
  drawn[place] = { plot, key };
  newestValues(plot);
}

function newestValues(plot) {
  if (plot.cursor.idx == null && plot.data[0].length) plot.setLegend({ idx: plot.data[0].length - 1 });
}

let lastChart = null;
function drawChart(chart) {
  lastChart = chart;
  drawThroughput(chart.rates);
  drawBehind(chart.behind);
}

function drawThroughput(rates) {
  if (!rates) { clear("throughput-chart", "unknown: the database does not answer"); return; }
  if (!rates.start_s.length) { clear("throughput-chart", "insufficient data: nothing was committed lately"); return; }
  const line = colour("--water");
  draw("throughput-chart", colour("--ink"), {
    height: 165,
    scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: axes(short),
    series: [{ label: "UTC", value: (_, v) => clock(v) },
      { label: "events/s", stroke: line, width: 1.75, fill: colour("--water-soft"), points: { show: false }, value: (_, v) => short(v) }],
  }, [rates.start_s, rates.events_per_s]);
}

function drawBehind(behind) {
  if (![...behind.waits_s, ...behind.in_flight].some(v => v != null)) { clear("behind-chart", "unknown: no look has told yet"); return; }
  if (behind.at_s.length < 2) { clear("behind-chart", "insufficient data: the first look was just now"); return; }
  draw("behind-chart", colour("--ink"), {
    height: 140,
    scales: { y: { range: (_, low, high) => [0, Math.max(2, high * 1.1)] }, flying: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    padding: [null, null, null, null],
    axes: [...axes(seconds, { stroke: colour("--p50") }), axis({ scale: "flying", side: 1, size: 44, stroke: colour("--p90"), grid: { show: false }, values: (_, splits) => splits.map(v => Number.isInteger(v) ? short(v) : "") })],
    series: [{ label: "UTC", value: (_, v) => clock(v) },
      { label: "waits", stroke: colour("--p50"), width: 1.75, points: { show: false }, value: (_, v) => v == null ? "unknown" : seconds(v) },
      { label: "in flight", scale: "flying", stroke: colour("--p90"), dash: DASHES[1], width: 1.25, points: { show: false }, value: (_, v) => v == null ? "unknown" : short(v) }],
  }, [behind.at_s, behind.waits_s, behind.in_flight]);
}

function clear(place, why) {
  if (drawn[place]) drawn[place].plot.destroy();
  delete drawn[place];
  byId(place).replaceChildren(...(why ? [said(why)] : []));
}

function said(text) {
  const p = document.createElement("p");
  p.className = "empty";
  p.textContent = text;
  return p;
}

let lastHeat = null;
function drawHeat(heat) {
  lastHeat = heat;
  const box = byId("heat-chart");
  box.hidden = !heat || !heat.limits.length;
  if (box.hidden) { clear("heat-chart"); return; }
  const words = wording(heat.unit), dash = { p50: DASHES[0], p90: DASHES[1], p99: DASHES[2] };
  const names = Object.keys(heat.lines), low = heat.limits[0], high = heat.limits[heat.limits.length - 1];
  const middle = heat.start_s.map(s => s + heat.step_s / 2);
  draw("heat-chart", [colour("--ink"), heat.series_key, heat.step_s, low, high].join(), {
    height: 370,
    scales: { x: { range: () => [lastHeat.from_s, lastHeat.to_s] }, y: { distr: 3, range: () => [low, high] } },
    axes: axes(words),
    hooks: { drawClear: [plot => paintCells(plot, lastHeat)] },
    series: [{ label: "UTC", value: (_, v) => v == null ? "–" : clock(v - lastHeat.step_s / 2) },
      ...names.map(name => ({ label: name, stroke: colour(`--${name}`), width: 2, dash: dash[name], points: { show: true, size: 3, fill: colour(`--${name}`) }, value: (_, v) => words(v) })),
      { label: "values", scale: "none", show: true, stroke: "transparent", width: 0, points: { show: false }, value: (_, v) => short(v) }],
  }, [middle, ...names.map(name => heat.lines[name]), heat.n]);
}

function paintCells(plot, heat) {
  const top = heat.cells.reduce((most, cell) => Math.max(most, cell[2]), 1), rgb = colour("--heat");
  const { ctx } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
  ctx.clip();
  for (const [window, band, n] of heat.cells) {
    const left = plot.valToPos(heat.start_s[window], "x", true), right = plot.valToPos(heat.start_s[window] + heat.step_s, "x", true);
    const upper = plot.valToPos(heat.limits[band + 1], "y", true), lower = plot.valToPos(heat.limits[band], "y", true);
    ctx.fillStyle = `rgb(${rgb} / ${0.1 + 0.75 * Math.sqrt(n / top)})`;
    ctx.fillRect(left, upper, Math.max(1, right - left - 1), Math.max(1, lower - upper - 1));
  }
  ctx.restore();
}

// Histograms that came since the page was painted; what is picked stays, and what went is left: it may have a past.
function offer(names) {
  const pick = byId("pick-series"), known = [...pick.options].map(option => option.value);
  pick.append(...names.filter(name => !known.includes(name)).map(name => new Option(name, name)));
  if (!names.length || pick.value) return;
  pick.remove(0);
  pick.value = names[0];
  askHeat();
}

let asking = 0;
async function askHeat() {
  clearTimeout(asking);
  const series = byId("pick-series").value, range = byId("pick-range").value;
  if (series) {
    try {
      const answer = await fetch(here(`api/heat?${new URLSearchParams({ series, range })}`), { cache: "no-store" });
      const heat = await answer.json();
      if (answer.ok) {
        put(byId("heat-text"), heat.html);
        drawHeat({ ...heat, series_key: series });
      } else if (answer.status !== 503) {
        byId("heat-text").replaceChildren(said(heat.error || "no picture"));
        drawHeat(null);
      }
    } catch { /* the line at the top says that the exporter does not answer */ }
  }
  if (!isPaused) asking = setTimeout(askHeat, HEAT_MS);
}

function redraw() {
  if (lastChart) drawChart(lastChart);
  drawHeat(lastHeat);
}

function resize() {
  for (const [place, { plot }] of Object.entries(drawn)) {
    const width = byId(place).clientWidth;
    if (width && width !== plot.width) plot.setSize({ width, height: plot.height });
  }
}

// Start.

byId("pause").hidden = false;
byId("pick-go").hidden = true;
byId("pause").addEventListener("click", togglePause);
byId("pick").addEventListener("change", () => {
  const query = new URLSearchParams({ series: byId("pick-series").value, range: byId("pick-range").value });
  history.replaceState(null, "", `?${query}`);
  askHeat();
});
byId("pick").addEventListener("submit", event => { event.preventDefault(); askHeat(); });
document.addEventListener("click", event => {
  const button = event.target.closest("button.copy");
  if (button) copy(button);
});
showCopyButtons(document);
new ResizeObserver(resize).observe(byId("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
open();
askHeat();
})();
