const value = (text) => { const n = parseFloat(text); return text === "" || Number.isNaN(n) ? null : n; };
function compare(a, b, way) {
  const x = value(a), y = value(b);
  if (x === null && y === null) return way * a.localeCompare(b);
  if (x === null) return 1;
  if (y === null) return -1;
  return way * (x - y);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const way = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    heads.forEach((h) => h.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
    const rows = [...body.rows].sort((a, b) => compare(a.cells[column].dataset.v, b.cells[column].dataset.v, way));
    body.append(...rows);
  }));
}
