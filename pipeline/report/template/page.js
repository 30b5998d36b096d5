"use strict";
(() => {
  const CARDS_A_PAGE = 6;
  const CARDS_PRINTED = 24;
  const PRINT_PIXELS = 680;
  const NARROW_PIXELS = 480;
  const CONFIG = { displaylogo: false, displayModeBar: false, responsive: true, showTips: false };
  const { plots, pictures } = JSON.parse(document.getElementById("figures").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const control = {
    model: document.getElementById("filter-model"),
    task: document.getElementById("filter-task"),
    text: document.getElementById("filter-text"),
  };
  const drawn = new Set();
  let printing = false;

  // which models and tasks an element is of, read once
  const known = new WeakMap();
  const namesOf = (element) => {
    if (!known.has(element)) {
      const models = JSON.parse(element.dataset.models);
      const tasks = JSON.parse(element.dataset.tasks);
      known.set(element, { models, tasks, text: [...models, ...tasks].join("\n").toLowerCase() });
    }
    return known.get(element);
  };
  const isWanted = (models, tasks, text) =>
    (!control.model.value || models.includes(control.model.value)) &&
    (!control.task.value || tasks.includes(control.task.value)) &&
    text.includes(control.text.value.trim().toLowerCase());
  const matches = (element) => {
    const { models, tasks, text } = namesOf(element);
    return isWanted(models, tasks, text);
  };

  // a heatmap of all runs is cut down to the models and tasks that are wanted
  const cut = (figure) => {
    const [models, tasks] = figure.labels;
    const keep = (model, task) => isWanted([model], [task], `${model}\n${task}`.toLowerCase());
    const rows = models.map((_, row) => row).filter((row) => tasks.some((task) => keep(models[row], task)));
    const columns = tasks.map((_, place) => place).filter((place) => models.some((model) => keep(model, tasks[place])));
    const [trace] = figure.data;
    const pick = (grid) => rows.map((row) => columns.map((column) => grid[row][column]));
    const places = (kept) => kept.map((_, place) => place);
    const texts = (axis, kept) => ({ ...axis, tickvals: places(kept), ticktext: kept.map((at) => axis.ticktext[at]) });
    const { layout } = figure;
    return {
      data: [{ ...trace, x: places(columns), y: places(rows), z: pick(trace.z), text: pick(trace.text),
        customdata: pick(trace.customdata), texttemplate: columns.length <= 16 ? "%{text}" : "" }],
      layout: { ...layout, height: 140 + 27 * rows.length, xaxis: texts(layout.xaxis, columns),
        yaxis: texts(layout.yaxis, rows) },
    };
  };

  // on a phone a legend has one entry a line, and needs as much more height
  const narrow = (data, layout) => {
    if (data[0].type === "heatmap") narrowHeatmap(data, layout);
    else if (layout.legend) layout.height += 18 * data.filter((trace) => trace.showlegend !== false).length;
  };
  // ... and numbers and names come before the bar of colours
  const narrowHeatmap = (data, layout) => {
    for (const trace of data) trace.showscale = false;
    Object.assign(layout.margin, { r: 6 });
    const many = data[0].z[0].length > 6;
    if (layout.xaxis.tickangle) Object.assign(layout.xaxis, { tickangle: -90, tickfont: { size: many ? 9 : 11 } });
    for (const axis of ["yaxis", "yaxis2"]) if (layout[axis]) layout[axis].tickfont = { size: 10 };
  };

  const draw = (element) => {
    if (drawn.has(element)) return;
    drawn.add(element);
    const figure = plots[element.id];
    const { data, layout } = structuredClone(figure.labels ? cut(figure) : figure);
    if (printing) Object.assign(layout, { width: PRINT_PIXELS, autosize: false });
    else if (element.clientWidth < NARROW_PIXELS) narrow(data, layout);
    element.style.minHeight = "";
    Plotly.newPlot(element, data, layout, CONFIG);
    element.dataset.drawn = "yes";
  };
  const purge = (element) => {
    if (!drawn.delete(element)) return;
    element.style.minHeight = `${plots[element.id].layout.height}px`;
    Plotly.purge(element);
    delete element.dataset.drawn;
  };
  const showPictures = (root) => {
    for (const image of all("img[data-picture]", root)) {
      const source = pictures[image.dataset.picture];
      if (typeof source === "string" && source.startsWith("data:image/jpeg;base64,")) image.src = source;
      image.removeAttribute("data-picture");
    }
  };
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        draw(entry.target);
        showPictures(entry.target.closest(".card"));
      }
    },
    { rootMargin: "400px" },
  );

  const fillTable = (details) => {
    if (details.querySelector("table")) return;
    const { columns, rows } = plots[details.dataset.plot];
    const box = document.createElement("div");
    Object.assign(box, { className: "scroll", tabIndex: 0 });
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Figure as a table");
    const table = box.appendChild(document.createElement("table"));
    const head = table.createTHead().insertRow();
    for (const column of columns) {
      const cell = head.appendChild(document.createElement("th"));
      Object.assign(cell, { scope: "col", textContent: column });
    }
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      for (const text of row) line.insertCell().textContent = text;
    }
    details.append(box);
  };

  // pages of cards: only those of the page that is shown are drawn
  const lists = all(".cards").map((box) => {
    const list = { box, cards: all(":scope > .card", box), page: 0, pager: null };
    if (box.nextElementSibling?.matches(".pager")) {
      list.pager = box.nextElementSibling;
      for (const button of all("button", list.pager)) {
        button.addEventListener("click", () => {
          list.page += Number(button.dataset.step);
          showList(list);
          box.closest("section").scrollIntoView({ block: "start" });
        });
      }
    }
    list.empty = document.createElement("p");
    Object.assign(list.empty, { className: "note", textContent: "Nothing here is of what is chosen above.", hidden: true });
    box.before(list.empty);
    return list;
  });
  const hideCard = (card) => {
    card.hidden = true;
    for (const plot of all(".plot", card)) purge(plot);
  };
  const showCard = (card) => {
    card.hidden = false;
    for (const plot of all(".plot", card)) {
      seen.unobserve(plot);
      seen.observe(plot);
    }
  };
  const showList = (list) => {
    const wanted = list.cards.filter(matches);
    const size = printing ? CARDS_PRINTED : CARDS_A_PAGE;
    const nPages = Math.max(1, Math.ceil(wanted.length / size));
    list.page = Math.min(Math.max(0, list.page), nPages - 1);
    const first = printing ? 0 : list.page * size;
    const shown = new Set(wanted.slice(first, first + size));
    for (const card of list.cards) (shown.has(card) ? showCard : hideCard)(card);
    list.empty.hidden = wanted.length > 0;
    if (!list.pager) return;
    list.pager.hidden = nPages < 2;
    const [previous, next] = all("button", list.pager);
    previous.disabled = list.page === 0;
    next.disabled = list.page === nPages - 1;
    list.pager.querySelector("output").textContent = `${first + 1} to ${first + shown.size} of ${wanted.length}`;
  };

  const filtered = all(".filtered");
  const status = document.getElementById("filter-status");
  const runs = all("#provenance .filtered");
  const apply = () => {
    for (const element of filtered) element.hidden = !matches(element);
    for (const list of lists) {
      list.page = 0;
      if (list.box.hasAttribute("data-cut")) all(".plot", list.box).forEach(purge);
      showList(list);
    }
    const nShown = runs.filter((run) => !run.hidden).length;
    status.textContent = nShown === runs.length ? `all ${nShown} runs` : `${nShown} of ${runs.length} runs`;
  };
  control.model.addEventListener("change", apply);
  control.task.addEventListener("change", apply);
  control.text.addEventListener("input", apply);
  const form = document.querySelector(".filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));

  const sortBy = (button) => {
    const heading = button.closest("th");
    if (!("sorts" in button.dataset)) heading.removeAttribute("aria-sort");
    const body = heading.closest("table").tBodies[0];
    const place = heading.cellIndex;
    const falls = heading.getAttribute("aria-sort") !== "descending" && heading.classList.contains("number");
    const rises = heading.getAttribute("aria-sort") !== "ascending" && !heading.classList.contains("number");
    const direction = falls || (!rises && !heading.classList.contains("number")) ? -1 : 1;
    const { part } = button.dataset; // of a cell that holds several
    const keyOf = (row) => (part ? row.cells[place].querySelector(`.of-${part}`) : row.cells[place]).textContent.trim();
    const compare = (a, b) => {
      const [one, other] = [a, b].map((row) => Number.parseFloat(keyOf(row).replace(/[,+]/g, "")));
      if (!heading.classList.contains("number")) return keyOf(a).localeCompare(keyOf(b));
      if (Number.isNaN(one) || Number.isNaN(other)) return direction * (Number.isNaN(one) - Number.isNaN(other));
      return one - other;
    };
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    for (const other of all("button", heading.parentElement)) delete other.dataset.sorts;
    button.dataset.sorts = "yes";
    heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => direction * compare(a, b)));
  };
  for (const button of all(".sortable thead button")) {
    button.addEventListener("click", () => sortBy(button));
  }
  for (const details of all("details.table")) {
    details.addEventListener("toggle", () => details.open && fillTable(details));
  }

  // paper has all that is chosen, not a page of it
  const startPrint = () => {
    if (printing) return;
    printing = true;
    for (const plot of [...drawn]) purge(plot);
    for (const list of lists) showList(list);
    for (const plot of all(".card:not([hidden]) .plot")) draw(plot);
    showPictures(document);
  };
  const endPrint = () => {
    if (!printing) return;
    printing = false;
    for (const plot of [...drawn]) purge(plot);
    for (const list of lists) showList(list);
  };
  matchMedia("(max-width: 700px)").addEventListener("change", () => {
    for (const plot of [...drawn]) purge(plot);
    for (const list of lists) showList(list);
  });
  addEventListener("beforeprint", startPrint);
  addEventListener("afterprint", endPrint);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? startPrint() : endPrint()));

  apply();
})();
