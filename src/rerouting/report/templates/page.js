"use strict";
(function () {
  const root = document.documentElement;
  const all = (selector, inside) => Array.from((inside || document).querySelectorAll(selector));
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // ---- plots -------------------------------------------------------------------------------------------------
  const plots = new Map();

  async function unpacked() {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly-packed").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function coloured(value, key) {
    if (typeof value === "string") {
      const named = key === "color" && value.startsWith("--");
      return named ? getComputedStyle(root).getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) return value.map((one) => coloured(one, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, coloured(one, name)]));
    }
    return value;
  }

  function laidOut(layout, traces, width) {
    const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), fixedrange: touch };
    const made = {
      ...layout,
      width,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 48, r: 12, t: 8, b: 40 },
      showlegend: traces.length > 1,
      legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0, font: { size: 11 } },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") }, align: "left" },
      hovermode: "closest",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--ink") },
    };
    made.xaxis = { ...axis, ...layout.xaxis };
    made.yaxis = { ...axis, ...layout.yaxis };
    return made;
  }

  const touch = matchMedia("(pointer: coarse)").matches;
  const settings = { displaylogo: false, responsive: false, displayModeBar: touch ? false : "hover", modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };

  function draw(id, width) {
    const figure = plots.get(id);
    const place = document.getElementById(id);
    const traces = coloured(figure.data);
    window.Plotly.react(place, traces, laidOut(figure.layout, traces, width || place.clientWidth), settings);
  }

  const drawAll = (width) => plots.forEach((_, id) => draw(id, width && Math.min(width, document.getElementById(id).clientWidth)));

  function choose(id) {
    const figure = plots.get(id);
    const chosen = {};
    all(`select[data-of="${id}"]`).forEach((one) => { chosen[one.dataset.axis] = one.value; });
    const across = figure.choices.x[chosen.x], up = figure.choices.y[chosen.y];
    figure.data.forEach((trace, at) => {
      const pairs = across[at].at.length && up[at].at.length;
      trace.x = pairs ? across[at].at : [];
      trace.y = pairs ? up[at].at : [];
      trace.error_x = { ...trace.error_x, ...across[at].error };
      trace.error_y = { ...trace.error_y, ...up[at].error };
      trace.hovertext = across[at].text.map((text, place) => text + "<br>" + up[at].text[place]);
    });
    figure.layout.xaxis.title.text = plain(chosen.x);
    figure.layout.yaxis.title.text = plain(chosen.y + " (axis turned)").replace(/(.{24,40}?) /g, "$1<br>");
    draw(id);
  }

  async function startPlots() {
    const places = all(".canvas");
    if (!places.length) return;
    const script = document.createElement("script");
    script.textContent = await unpacked();
    document.head.append(script);
    if (!window.Plotly) throw new Error("plotly.js did not start");
    places.forEach((place) => {
      plots.set(place.id, JSON.parse(document.getElementById(place.id + "-data").textContent));
      if (plots.get(place.id).choices.x) choose(place.id);
      else draw(place.id);
    });
    all("select[data-of]").forEach((one) => one.addEventListener("change", () => choose(one.dataset.of)));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
    let waiting = 0, before = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === before) return;
      before = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(drawAll, 150);
    });
    addEventListener("beforeprint", () => { root.classList.add("print"); drawAll(660); });
    addEventListener("afterprint", () => { root.classList.remove("print"); drawAll(); });
    root.dataset.plots = "drawn";
  }

  // ---- examples ----------------------------------------------------------------------------------------------
  const STEP = 12;

  function startBrowser(browser) {
    const form = browser.querySelector(".filters"), more = browser.querySelector(".more");
    const cards = all(".example", browser);
    const fields = ["set", "base", "rerouted"];
    fields.forEach((name) => {
      const values = new Set(cards.map((card) => card.dataset[name]).filter(Boolean));
      values.forEach((value) => form.elements[name].append(new Option(value, value)));
    });
    let most = STEP;
    function filter() {
      const wanted = form.elements.text.value.toLowerCase();
      const found = cards.filter((card) =>
        fields.every((name) => !form.elements[name].value || card.dataset[name] === form.elements[name].value) &&
        (!wanted || card.textContent.toLowerCase().includes(wanted)));
      const shown = new Set(found.slice(0, most));
      cards.forEach((card) => { card.hidden = !shown.has(card); });
      form.querySelector("output").textContent = `${shown.size} of ${found.length}`;
      more.hidden = shown.size === found.length;
    }
    form.addEventListener("input", () => { most = STEP; filter(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => { most += STEP; filter(); });
    form.hidden = false;
    filter();
  }

  // ---- token heat maps ---------------------------------------------------------------------------------------
  function startTokens(section) {
    const bar = document.createElement("p");
    bar.className = "legend";
    bar.innerHTML = '<label>Shade by <select><option value="">cosine to the base</option><option value="kl">KL, nats</option></select></label>' +
      '<span><span class="from">1</span> <span class="scale"></span> <span class="to">0 or less</span></span><span>framed: where it trips</span>';
    section.querySelector(".lead").after(bar);
    bar.querySelector("select").addEventListener("change", (event) => {
      const kl = event.target.value === "kl";
      section.classList.toggle("by-kl", kl);
      bar.querySelector(".from").textContent = kl ? "0" : "1";
      bar.querySelector(".to").textContent = kl ? "8 or more" : "0 or less";
    });
    const read = (event) => {
      const token = event.target.closest(".tokens i");
      if (!token) return;
      const value = (name) => token.style.getPropertyValue(name).trim() || "not measured";
      token.closest(".heat").querySelector(".reading").textContent =
        `“${token.textContent}”: cosine ${value("--c")}, KL ${value("--k")}`;
    };
    section.addEventListener("pointerover", read);
    section.addEventListener("click", read);
  }

  // ---- contents ----------------------------------------------------------------------------------------------
  function startContents() {
    const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
    const seen = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
        links.forEach((link) => link.classList.remove("here"));
        links.get(entry.target.id).classList.add("here");
      });
    }, { rootMargin: "-15% 0px -80% 0px" });
    all("main > section").forEach((section) => seen.observe(section));
  }

  startContents();
  all(".browser").forEach(startBrowser);
  const tokens = document.getElementById("tokens");
  if (tokens && tokens.querySelector(".heat")) startTokens(tokens);
  startPlots().catch((error) => {
    all(".canvas").forEach((place) => { place.style.height = "auto"; place.textContent = "This browser cannot draw the plot: " + error.message; });
  });
})();
