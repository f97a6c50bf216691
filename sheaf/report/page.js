"use strict";
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
