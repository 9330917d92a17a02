"use strict";
// The page's own program: treemaps, chart, tables. All names are foreign text: they go into the
// document by textContent, and into plotly.js, which reads a few tags, with < and & escaped.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en-US");
  const percent = (part) => (part * 100).toFixed(part < 0.1 ? 2 : 1) + " %";
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = matchMedia("(max-width: 60rem)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const options = { displayModeBar: false };
  const redraws = [];

  function element(name, text, more) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return Object.assign(made, more || {});
  }

  function layout(more) {
    return Object.assign({
      margin: { l: 0, r: 0, t: 0, b: 0 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--ink") },
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--soft"), align: "left",
        font: { color: color("--ink") } },
    }, more);
  }

  // Where the bytes are ----------------------------------------------------------------------

  const HUES = [208, 28, 145, 276, 350, 185, 48, 320, 95, 240];

  class Image {
    constructor(tree) {
      Object.assign(this, tree);
      this.below = this.labels.map(() => []);
      const guess = new Set(tree.estimated);
      this.guess = this.labels.map(() => false);
      this.parents.forEach((parent, at) => {
        if (parent < 0) return;
        this.below[parent].push(at);
        this.guess[at] = guess.has(parent) || this.guess[parent];
      });
      this.tops = new Set([0, ...tree.estimated]);
    }

    path(at) {
      const found = [];
      for (; at >= 0; at = this.parents[at]) found.unshift(at);
      return found;
    }

    symbol(at) {
      for (; at >= 0; at = this.parents[at]) if (this.symbols[at]) return this.symbols[at];
      return "";
    }

    bytes(at) {
      return (this.guess[at] ? "about " : "") + number.format(this.sizes[at]);
    }

    // What hovering shows; plotly.js takes <br> and <b> in it.
    hover(at) {
      const lines = [`<b>${escaped(this.path(at).slice(1).map((one) => this.labels[one]).join("/")
        || this.labels[0])}</b>`, `${this.bytes(at)} B, ${percent(this.sizes[at] / this.sizes[0])}`];
      if (this.abouts[at]) lines.push(`compressed about ${number.format(this.abouts[at])} B`);
      const symbol = this.symbol(at);
      if (symbol) lines.push(escaped("CONFIG_" + symbol));
      return lines.join("<br>");
    }

    // The colors of nodes, each behind the one that it is in: a hue for each part of the first, in
    // which its own parts differ in lightness.
    colors(nodes) {
      const hues = new Map(), deep = new Map(), places = new Map();
      return nodes.map((at) => {
        const parent = this.parents[at], place = places.get(parent) || 0;
        places.set(parent, place + 1);
        if (!hues.has(parent) || this.tops.has(at)) {
          hues.set(at, null);
          deep.set(at, 0);
          return color("--line");
        }
        const own = hues.get(parent) === null;
        const hue = !own ? hues.get(parent) : this.labels[at].startsWith("(") ? -1 : HUES[place % HUES.length];
        hues.set(at, hue);
        deep.set(at, deep.get(parent) + 1);
        const light = (dark.matches ? 24 : 60) + (place % 3) * 4 + deep.get(at) * 5;
        return `hsl(${Math.max(hue, 0)}, ${hue < 0 ? 4 : 46}%, ${light}%)`;
      });
    }
  }

  function where() {
    const images = data.where.map((tree) => new Image(tree));
    const map = $("where-map"), rows = $("where-rows"), path = $("where-path");
    let image = images[0], level = 0;

    // Levels that are drawn below the present one: one more where the first holds little but the
    // compressed kernel.
    function depth() {
      return (narrow.matches ? 1 : 2) + (level === 0 && image.tops.size > 1 ? 1 : 0);
    }

    // The nodes that can be seen: plotly.js makes elements for all that it is given.
    function visible() {
      const found = [level], least = image.sizes[level] / 20000;
      let last = found;
      for (let deep = depth(); deep > 0; deep--) {
        last = last.flatMap((at) => image.below[at].filter((one) => image.sizes[one] >= least));
        found.push(...last);
      }
      return found;
    }

    function draw() {
      const nodes = visible();
      Plotly.react(map, [{
        type: "treemap", branchvalues: "total",
        ids: nodes.map(String),
        parents: nodes.map((at) => (at === level ? "" : String(image.parents[at]))),
        labels: nodes.map((at) => escaped(image.labels[at])),
        values: nodes.map((at) => image.sizes[at]),
        text: nodes.map((at) => image.bytes(at)),
        hovertext: nodes.map((at) => image.hover(at)),
        hoverinfo: "text", texttemplate: "%{label}<br>%{text}",
        textfont: { color: dark.matches ? "#ffffff" : "#101418" },
        sort: false, tiling: { packing: "squarify", pad: 2 }, pathbar: { visible: false },
        marker: { colors: image.colors(nodes), pad: { t: 20, l: 3, r: 3, b: 3 },
          line: { width: 1, color: color("--card") }, depthfade: false },
      }], layout({ uniformtext: { minsize: 10, mode: "hide" } }), options);
      map.removeAllListeners("plotly_treemapclick");
      map.on("plotly_treemapclick", (event) => {
        const at = Number(event.points[0].id);
        if (at === level) show(Math.max(image.parents[at], 0)); // its heading: back
        else if (image.below[at].length) show(at);
        return false; // instead of plotly's own zoom, which knows only what it was given
      });
    }

    function row(at, whole, named) {
      const line = element("tr"), cell = element("td"), many = image.below[at].length;
      const name = element(many ? "button" : "span", named || image.labels[at]);
      if (many) { name.type = "button"; name.onclick = () => show(at, true); }
      cell.append(name);
      const symbol = image.symbols[at];
      if (symbol) cell.append(element("span", "CONFIG_" + symbol, { className: "doc" }));
      cell.style.setProperty("--part", whole ? image.sizes[at] / whole : 0);
      line.append(cell, element("td", image.bytes(at), { className: "number" }),
        element("td", percent(image.sizes[at] / image.sizes[0]), { className: "number" }),
        element("td", image.abouts[at] ? number.format(image.abouts[at]) : "", { className: "number" }));
      line.lastChild.hidden = !image.abouts[0];
      return line;
    }

    function list() {
      $("where-said").textContent = `${image.labels[0]}: ${image.title}, ${number.format(image.sizes[0])} bytes.`
        + " Click or tap a part, or use the table, to look into it; a click on its heading leads back.";
      $("where-about").hidden = !image.abouts[0];
      path.replaceChildren(...image.path(level).map((at) => at === level
        ? element("b", image.labels[at])
        : element("button", image.labels[at], { type: "button", onclick: () => show(at, true) })));
      rows.replaceChildren(...image.below[level].slice(0, 500).map((at) => row(at, image.sizes[level])));
    }

    function show(at, focus) {
      level = at;
      draw();
      list();
      const first = focus && (rows.querySelector("button") || path.querySelector("button:last-of-type"));
      if (first) first.focus({ preventScroll: true });
    }

    function find(text) {
      const wanted = text.toLowerCase();
      const found = [];
      for (let at = 1; at < image.labels.length && found.length < 200; at++)
        if (image.labels[at].toLowerCase().includes(wanted)) found.push(at);
      found.sort((one, other) => image.sizes[other] - image.sizes[one]);
      path.replaceChildren(element("b", `${found.length === 200 ? "the first 200" : found.length} found`));
      rows.replaceChildren(...found.map((at) => {
        const line = row(at, 0, image.path(at).slice(1).map((one) => image.labels[one]).join("/"));
        const name = line.querySelector("span:not(.doc)");
        if (name) {
          const link = element("button", name.textContent, { type: "button" });
          link.onclick = () => show(image.parents[at], true);
          name.replaceWith(link);
        }
        return line;
      }));
    }

    $("where-controls").onsubmit = () => false;
    $("where-controls").onchange = (event) => {
      if (event.target.name !== "tree") return;
      image = images[Number(event.target.value)];
      level = 0;
      $("where-find").value = "";
      draw();
      list();
    };
    $("where-find").oninput = (event) => (event.target.value.length > 1 ? find(event.target.value) : list());
    draw();
    list();
    redraws.push(draw);
  }

  // The sizes of earlier builds --------------------------------------------------------------

  function history() {
    const said = data.history, place = $("history-chart");
    let chosen = said.charts[0];

    function draw() {
      const hover = chosen.sizes.map((size, at) => {
        const before = chosen.sizes[at - 1];
        const lines = [`<b>${number.format(size)} B</b>` + (size && before && size !== before
          ? ` (${size > before ? "+" : ""}${number.format(size - before)})` : ""), escaped(said.when[at])];
        for (const text of said.changes[at].slice(0, 8)) lines.push(escaped(text.slice(0, 90)));
        if (said.changes[at].length > 8) lines.push(`and ${said.changes[at].length - 8} more`);
        return lines.join("<br>");
      });
      const known = chosen.sizes.filter((size) => size), least = Math.min(...known), most = Math.max(...known);
      const room = Math.max((most - least) * 0.15, most * 0.0005, 1);
      let marks = 0;
      Plotly.react(place, [{
        type: "scatter", mode: said.named ? "lines+markers+text" : "lines+markers",
        x: chosen.sizes.map((_, at) => at + 1), y: chosen.sizes,
        text: said.short.map(escaped), textposition: said.short.map((text) => (text && marks++ % 2 ? "bottom center" : "top center")), cliponaxis: false,
        hovertext: hover, hoverinfo: "text",
        line: { shape: "hv", width: 2, color: color("--kind1") },
        marker: { size: said.short.map((text) => (text ? 10 : 6)),
          color: said.short.map((text) => color(text ? "--kind2" : "--kind1")) },
      }], layout({
        margin: { l: 80, r: 30, t: 30, b: 50 },
        hovermode: "closest",
        xaxis: { title: { text: "build (orange: the configuration changed)", font: { size: 12 } }, dtick: chosen.sizes.length < 20 ? 1 : undefined,
          gridcolor: color("--line"), zeroline: false, range: [0.5, chosen.sizes.length + 0.5] },
        yaxis: { tickformat: ",d", range: [least - room, most + room], gridcolor: color("--line"), zeroline: false },
      }), options);
    }

    $("history-controls").onsubmit = () => false;
    $("history-controls").onchange = (event) => { chosen = said.charts[Number(event.target.value)]; draw(); };
    draw();
    redraws.push(draw);
  }

  // The boot ---------------------------------------------------------------------------------

  function boot() {
    const bars = data.boot, place = $("boot-chart");
    const colors = { phase: "--kind1", initcall: "--kind2", probe: "--kind3", program: "--kind4" };

    const both = bars.some((bar) => bar.before);  // of two boots, the one before below and in grey

    function earlier() {
      const shown = bars.map((bar, at) => [bar, at]).filter(([bar]) => bar.before);
      return {
        type: "bar", orientation: "h", name: "before",
        y: shown.map(([, at]) => at + 0.24), x: shown.map(([bar]) => bar.before.count), base: shown.map(([bar]) => bar.before.start),
        hovertext: shown.map(([bar]) => [`<b>${escaped(bar.name.slice(0, 90))}</b>, before`,
          `${bar.before.count.toFixed(2)} M instructions from ${bar.before.start.toFixed(2)} M on`,
          ...(bar.count === null ? ["not there now"] : [`${(bar.count - bar.before.count).toFixed(2)} M more now`])].join("<br>")),
        hoverinfo: "text", marker: { color: color("--line") }, width: 0.35,
      };
    }

    function draw() {
      place.style.height = `${bars.length * (both ? 26 : 18) + 70}px`;
      Plotly.react(place, [...new Set(bars.map((bar) => bar.kind))].map((kind) => {
        const shown = bars.map((bar, at) => [bar, at]).filter(([bar]) => bar.kind === kind && bar.count !== null);
        return {
          type: "bar", orientation: "h", name: kind,
          y: shown.map(([, at]) => (both ? at - 0.16 : at)), x: shown.map(([bar]) => bar.count), base: shown.map(([bar]) => bar.start),
          hovertext: shown.map(([bar]) => [`<b>${escaped(bar.name.slice(0, 90))}</b>`,
            `${bar.count.toFixed(2)} M instructions from ${bar.start.toFixed(2)} M on`,
            ...(bar.slept ? [`${number.format(bar.slept)} ms asleep`] : []),
            ...(bar.bytes ? [`${number.format(bar.bytes)} bytes on the serial line`] : []),
            ...(bar.why ? [escaped(bar.why.slice(0, 120))] : [])].join("<br>")),
          hoverinfo: "text", marker: { color: color(colors[kind] || "--kind5") }, width: both ? 0.42 : 0.75,
        };
      }).concat(both ? [earlier()] : []), layout({
        barmode: "overlay", hovermode: "closest", showlegend: true, dragmode: "zoom",
        legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
        margin: { l: narrow.matches ? 110 : 260, r: 20, t: 30, b: 40 },
        xaxis: { title: { text: "million instructions since reset", font: { size: 12 } }, gridcolor: color("--line"), zeroline: false },
        yaxis: { autorange: "reversed", fixedrange: true, tickvals: bars.map((_, at) => at), ticks: "",
          ticktext: bars.map((bar) => escaped("\u2003".repeat(bar.depth) + short(bar.name, narrow.matches ? 14 : 38 - 2 * bar.depth))),
          tickfont: { size: 11 }, gridcolor: color("--line"), zeroline: false },
      }), options);
    }

    const short = (text, most) => (text.length > most ? text.slice(0, most - 1) + "\u2026" : text);
    draw();
    redraws.push(draw);
  }

  // The configuration ------------------------------------------------------------------------

  function configuration() {
    const table = $("configuration-table"), body = table.tBodies[0];
    const all = [...body.rows].map((row) => ({
      row, text: row.textContent.toLowerCase(), kind: row.dataset.kind, on: row.dataset.on === "1",
      symbol: row.cells[0].firstChild.textContent, value: row.cells[1].textContent, reason: row.cells[2].textContent,
      own: Number(row.dataset.own), all: Number(row.dataset.all),
    }));

    function choose() {
      const wanted = $("configuration-find").value.toLowerCase().replace(/^config_/, "").trim();
      const value = $("configuration-value").value, kind = $("configuration-kind").value;
      let shown = 0;
      for (const one of all) {
        const fits = (!value || one.on === (value === "on")) && (!kind || one.kind === kind) && one.text.includes(wanted);
        one.row.hidden = !fits;
        shown += fits;
      }
      $("configuration-count").textContent = `${number.format(shown)} of ${number.format(all.length)}`;
    }

    function sort(button) {
      const head = button.closest("th"), key = button.dataset.key;
      const numeric = key === "own" || key === "all";
      const up = head.ariaSort === "none" ? !numeric : head.ariaSort === "descending";
      for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
      head.ariaSort = up ? "ascending" : "descending";
      const way = up ? 1 : -1;
      all.sort((one, other) => way * (numeric ? one[key] - other[key] : one[key].localeCompare(other[key]))
        || one.symbol.localeCompare(other.symbol));
      body.append(...all.map((one) => one.row));
    }

    $("configuration-controls").onsubmit = () => false;
    $("configuration-controls").oninput = choose;
    table.tHead.onclick = (event) => event.target.closest("button") && sort(event.target.closest("button"));
    choose();
  }

  if ($("where-map")) where();
  if ($("history-chart")) history();
  if ($("boot-chart")) boot();
  if ($("configuration-table")) configuration();
  const redraw = () => redraws.forEach((draw) => draw());
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  const fit = () => document.querySelectorAll(".chart").forEach((one) => Plotly.Plots.resize(one));
  const watch = new ResizeObserver(fit);
  document.querySelectorAll(".chart").forEach((one) => watch.observe(one));
  addEventListener("beforeprint", fit);
  document.documentElement.dataset.ready = "1";
})();
