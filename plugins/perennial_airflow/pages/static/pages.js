"use strict";
// Draws the plots, and opens links to other applications beside Airflow's frame, not inside of it.

// Text of the page's own addresses, or of an HTTP server: nothing that could run.
const isAddress = (url) => /^(https?:\/\/|\/(?!\/))/.test(url);

function openOutside(url) {
  if (!isAddress(url)) return;
  // Airflow shows the page in a frame that may open no window. Its own page, of the same origin, may.
  const page = window.top === window ? document : window.top.document;
  const link = page.createElement("a");
  link.href = new URL(url, window.location.href).href;
  link.target = "_blank";
  link.rel = "noopener";
  page.body.append(link);
  link.click();
  link.remove();
}

// "@good" under a key `color` is the colour --good of the page's style.
function colored(value, style, key) {
  if (Array.isArray(value)) return value.map((each) => colored(each, style, key));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, colored(each, style, name)]));
  }
  if (key === "color" && typeof value === "string" && value.startsWith("@")) {
    return style.getPropertyValue(`--${value.slice(1)}`).trim();
  }
  return value;
}

function draw(place) {
  const { traces, layout } = JSON.parse(place.dataset.figure);
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
  const own = colored(layout, style);
  const shared = {
    margin: { l: 40, r: 10, t: 20, b: 30 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif", size: 13 },
    hovermode: "closest",
    legend: { orientation: "h", y: -0.2 },
  };
  const axes = { xaxis: { ...axis, type: "date", ...own.xaxis }, yaxis: { ...axis, ...own.yaxis } };
  // Drag to zoom in, double-click to zoom out.
  Plotly.newPlot(place, colored(traces, style), { ...shared, ...own, ...axes }, { responsive: true, displayModeBar: false });
  place.on("plotly_click", (event) => event.points[0].customdata && openOutside(event.points[0].customdata));
}

function drawAll() {
  if (typeof Plotly !== "undefined") document.querySelectorAll("[data-figure]").forEach(draw);
}

drawAll();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
if (window.top !== window) {
  document.querySelectorAll("a.out").forEach((link) =>
    link.addEventListener("click", (event) => {
      event.preventDefault();
      openOutside(link.getAttribute("href"));
    }),
  );
}
