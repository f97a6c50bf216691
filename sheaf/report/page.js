"use strict";
// Tooltips of pictures: the same texts as the SVG's title elements, without a browser's delay, and on touch.
const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
document.body.append(tip);
for (const title of document.querySelectorAll("figure svg g > title")) {
  title.parentElement.dataset.value = title.textContent;
  title.remove();
}
addEventListener("pointermove", (event) => {
  const mark = event.target instanceof Element && event.target.closest("[data-value]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.value;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 18;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : event.clientY - tip.offsetHeight - 10}px`;
});
// A table wider than the window has a line above it as a cue.
const cue = () => {
  for (const scroll of document.querySelectorAll(".scroll")) {
    scroll.parentElement.querySelector(".cue").hidden = scroll.scrollWidth <= scroll.clientWidth;
  }
};
addEventListener("resize", cue);
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", cue);
cue();
// "Copy table" copies tab-separated text for spreadsheets. Without clipboard access it selects the table.
for (const button of document.querySelectorAll("button.copy")) {
  const table = button.parentElement.querySelector("table");
  button.hidden = false;
  button.addEventListener("click", async () => {
    const lines = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t"));
    try {
      await navigator.clipboard.writeText(lines.join("\n"));
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(table);
      button.textContent = "Selected; press Ctrl+C";
    }
  });
}
// Prints show folded tables too.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
