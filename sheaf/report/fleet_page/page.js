"use strict";
// The server sends fragments of HTML, already escaped: all of them at first, then those that have changed.
let offset = 0; // this machine's clock minus the cloud's, in seconds
let shown = "all";
let heard = Date.now();
const byId = (id) => document.getElementById(id);
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const ago = (seconds) => {
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (seconds >= 2 * length) return relative.format(-Math.floor(seconds / length), unit);
  }
  return seconds < 10 ? "just now" : `${Math.floor(seconds)} s ago`;
};
const tellTimes = (root) => {
  for (const time of root.querySelectorAll("time")) {
    time.textContent = ago(Math.max(0, Date.now() / 1000 - offset - time.dataset.at));
    time.title = new Date(time.dataset.at * 1000).toLocaleString();
  }
};
const filter = () => {
  const text = byId("search").value.trim().toLowerCase();
  for (const row of byId("devices").tBodies[0].rows) {
    row.hidden = !(shown === "all" || row.dataset.state === shown)
      || !row.cells[0].textContent.toLowerCase().includes(text);
  }
  for (const button of byId("states").children) {
    button.setAttribute("aria-pressed", String(button.dataset.show === shown));
  }
};
const adopt = () => {
  const main = document.querySelector("main");
  offset = Date.now() / 1000 - main.dataset.now;
  byId("filter").hidden = byId("devices").tBodies[0].rows.length <= 10;
  byId("search").addEventListener("input", filter);
  filter();
  tellTimes(main);
};
const parsed = (html) => {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
};
const keepingFocus = (change) => {
  const { id, value } = document.activeElement ?? {};
  change();
  const again = id && byId(id);
  if (!again) return;
  if (value !== undefined && "value" in again && again.value !== value) again.value = value;
  again.focus({ preventScroll: true });
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("#states button");
  if (!button) return;
  shown = shown === button.dataset.show ? "all" : button.dataset.show;
  filter();
});
adopt();
setInterval(() => tellTimes(document), 5000);
const source = new EventSource("events");
const received = () => {
  heard = Date.now();
  byId("connection").hidden = true;
};
source.addEventListener("all", (event) => {
  received();
  const search = byId("search").value;
  keepingFocus(() => {
    document.querySelector("main").replaceWith(parsed(JSON.parse(event.data)));
    byId("search").value = search;
    adopt();
  });
});
source.addEventListener("changes", (event) => {
  received();
  keepingFocus(() => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) {
      const fragment = parsed(html);
      tellTimes(fragment);
      byId(id).replaceWith(fragment);
    }
    filter();
  });
});
source.addEventListener("error", () => {
  const note = byId("connection");
  note.querySelector("span").textContent = new Date(heard).toLocaleTimeString();
  note.hidden = false;
  // After an HTTP error, such as 401 or 503, a browser does not connect again by itself.
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 10000);
});
