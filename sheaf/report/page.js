"use strict";
// "Copy table": tab-separated text, as spreadsheets take it. Without a clipboard the table is selected instead.
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
      button.textContent = "Selected: now copy";
    }
  });
}
// On paper everything is shown.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
