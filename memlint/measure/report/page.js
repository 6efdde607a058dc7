"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const chart = document.getElementById("timeline");
  const moment = document.getElementById("moment");
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const words = (bytes) => {
    let unit = 0;
    while (Math.abs(bytes) >= 1023.95 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
    return bytes.toFixed(unit ? 1 : 0) + " " + units[unit];
  };
  // Bands differ in hue, in lightness, and every second one in its pattern.
  const patterns = { gradients: "/", backward_temporaries: "\\", inputs: "." };

  const traces = () => data.categories.map((category, index) => ({
    x: data.events,
    y: data.levels[index].map((bytes) => bytes / data.unit.bytes),
    name: category.words,
    stackgroup: "all",
    mode: "lines",
    line: { width: 1, color: colour(category.name), shape: "hv" },
    fillcolor: colour(category.name),
    fillpattern: patterns[category.name]
      ? { shape: patterns[category.name], fgcolor: colour("ground"), fgopacity: 0.55, size: 7, fillmode: "overlay" }
      : undefined,
    hoverinfo: "none",
  }));

  // A label needs about 6 % of the width: of those that would overlap, the later one stays.
  const labels = data.steps.filter((step, index) => {
    const next = data.steps[index + 1];
    return !next || next.start - step.start > 0.06 * data.last_event;
  });

  const layout = () => ({
    paper_bgcolor: colour("ground"),
    plot_bgcolor: colour("ground"),
    font: { color: colour("text"), size: 13 },
    margin: { l: 70, r: 20, t: 40, b: 44 },
    hovermode: "x",
    hoverdistance: -1,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: {
      tickvals: labels.map((step) => step.start),
      ticktext: labels.map((step) => step.words),
      ticklabelposition: "outside right",
      tickangle: 0,
      gridcolor: colour("rule"),
      range: [0, Math.max(1, data.last_event)],
      showspikes: true, spikemode: "across", spikesnap: "data", spikethickness: 1, spikecolor: colour("text"), spikedash: "solid",
      zeroline: false,
    },
    yaxis: { ticksuffix: " " + data.unit.name, gridcolor: colour("rule"), rangemode: "tozero", zeroline: false },
    shapes: data.reserved === null ? [] : [{
      type: "line", xref: "paper", x0: 0, x1: 1, y0: data.reserved / data.unit.bytes, y1: data.reserved / data.unit.bytes,
      line: { color: colour("text"), width: 1, dash: "dash" },
    }],
    annotations: [
      ...(data.reserved === null ? [] : [{
        xref: "paper", x: 0, xanchor: "left", y: data.reserved / data.unit.bytes, yanchor: "bottom", showarrow: false,
        text: "reserved: " + words(data.reserved), bgcolor: colour("ground"),
      }]),
      ...(data.peak === null ? [] : [{
        x: data.events[data.peak], y: data.totals[data.peak] / data.unit.bytes, text: "peak: " + words(data.totals[data.peak]),
        // Beside the peak, on the side where there is room.
        ax: 2 * data.peak > data.events.length ? -90 : 90, ay: 0,
        arrowcolor: colour("text"), bgcolor: colour("ground"), bordercolor: colour("text"), borderpad: 3,
      }]),
    ],
  });

  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const swatch = (category) => element("span", "", { class: "swatch", style: `background: var(--${category.name})` });

  let shown = 0;
  const show = (index) => {
    shown = Math.min(Math.max(index, 0), data.events.length - 1);
    moment.replaceChildren(
      element("b", words(data.totals[shown])),
      element("span", ` (${data.basis}) ${data.where[shown]}${shown === data.peak ? ", the peak" : ""}; held most by:`),
    );
    const table = element("table", "");
    for (const [line, category, bytes] of data.lines_at[shown]) {
      const row = table.insertRow();
      row.append(element("td", words(bytes), { class: "number" }));
      const what = row.insertCell();
      what.className = "category";
      what.append(swatch(data.categories[category]), data.categories[category].words);
      const place = data.lines[line];
      const where = row.insertCell();
      where.append(place.anchor ? element("a", place.words, { href: "#" + place.anchor }) : place.words);
      row.insertCell().append(element("code", place.source));
    }
    moment.append(table);
  };

  const draw = () => Plotly.react(chart, traces(), layout(), {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  });

  const paint = (theme) => {
    root.dataset.theme = theme;
    if (data.events.length) draw();
  };
  document.getElementById("theme").addEventListener("click", () => paint(root.dataset.theme === "dark" ? "light" : "dark"));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", (event) => paint(event.matches ? "dark" : "light"));
  paint(dark.matches ? "dark" : "light");
  if (!data.events.length) return;

  show(data.peak);
  chart.on("plotly_hover", (event) => show(event.points[0].pointIndex));
  chart.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(shown + by);
    Plotly.Fx.hover(chart, [{ curveNumber: 0, pointNumber: shown }]);
  });
  // A link into a folded file opens it.
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const folded = target && target.closest("details");
    if (folded) { folded.open = true; target.scrollIntoView({ block: "center" }); }
  };
  window.addEventListener("hashchange", unfold);
  unfold();
})();
