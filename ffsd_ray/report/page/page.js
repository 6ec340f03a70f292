// Tables sort by the column whose head is clicked: numbers by their value, words by the alphabet, gaps last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const head of table.tHead.rows[0].cells) {
    head.tabIndex = 0;
    head.title = "sort";
    head.onkeydown = (event) => { if (event.key === "Enter") head.click(); };
    head.onclick = () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [row.cells[head.cellIndex].textContent, row]);
      const sign = rising ? 1 : -1;
      rows.sort(([a], [b]) => {
        const [x, y] = [parseFloat(a), parseFloat(b)];
        if (head.cellIndex === 0) return sign * a.localeCompare(b, undefined, { numeric: true });
        return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
      });
      body.append(...rows.map(([, row]) => row));
    };
  }
}
