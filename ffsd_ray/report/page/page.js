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

// Charts are drawn in the page's colours, and again where these or the width change. On a narrow screen the legend goes
// below, and a finger moves the page, not the chart.
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 700px)");
const colours = new Map(Object.entries(JSON.parse(document.getElementById("colours").textContent)));

function figureOf(chart) {
  const style = getComputedStyle(document.documentElement);
  const own = (key, value) => (colours.has(value) ? style.getPropertyValue(colours.get(value)).trim() : value);
  const { data, layout } = JSON.parse(chart.nextElementSibling.textContent, own);
  layout.font.family = getComputedStyle(document.body).fontFamily;
  if (narrow.matches) {
    const names = layout.showlegend === false ? [] : data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name);
    const named = layout.updatemenus ? new Set(names).size : names.length;
    const plot = layout.height - layout.margin.t - layout.margin.b;
    layout.legend = { ...layout.legend, orientation: "h", x: 0, y: -70 / plot, yanchor: "top" };
    const below = named > 1 ? 30 + 21 * named : 0;
    layout.height += below;
    layout.margin = { ...layout.margin, l: 44, r: 8, b: layout.margin.b + below };
    layout.font.size = 12;
    layout.dragmode = false;
  }
  return [data, layout];
}

function draw() {
  // These alone: others send a chart elsewhere.
  const modeBarButtons = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]];
  for (const chart of document.querySelectorAll(".chart")) {
    const [data, layout] = figureOf(chart);
    chart.style.height = `${layout.height}px`;
    Plotly.react(chart, data, layout, { displaylogo: false, responsive: true, modeBarButtons });
  }
}

draw();
dark.onchange = draw;
narrow.onchange = draw;
