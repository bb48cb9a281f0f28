"use strict";
(() => {
  const byId = id => document.getElementById(id);
  for (const button of document.querySelectorAll("button[data-copies]")) {
    const source = byId(button.dataset.copies), told = button.nextElementSibling;
    button.hidden = false;
    button.addEventListener("click", async () => {
      let done = true;
      try { await navigator.clipboard.writeText(source.textContent.trim()); }
      catch (refused) {  // by the browser: select it, and copy as a reader would
        const chosen = document.createRange();
        chosen.selectNodeContents(source);
        getSelection().removeAllRanges();
        getSelection().addRange(chosen);
        done = document.execCommand("copy");
      }
      told.textContent = done ? "copied" : "selected: copy it with Ctrl-C";
    });
  }

  const held = byId("particles-data");
  if (!held) return;
  const { n, columns } = JSON.parse(held.textContent);
  const PER_PAGE = 50, EMPTY = "";
  const shown = (column, i) => {
    const value = column.values[i];
    if (value === null) return EMPTY;
    return column.kind === "word" ? column.words[value] : String(value);
  };
  const named = key => columns.find(column => (column.key || column.title) === key);
  const name = named("particle"), structure = named("structure"), probability = columns.findLast(
    column => column.title.startsWith("probability"));
  const micrograph = named("micrograph");
  const lower = name.values.map(text => text.toLowerCase());
  const lowerMicrograph = micrograph ? micrograph.words.map(text => text.toLowerCase()) : [];
  const body = byId("particles-rows"), head = byId("particles-head");
  const found = byId("particles-found"), place = byId("particles-place");
  const text = byId("particles-text"), least = byId("particles-least"), which = byId("particles-structure");
  let order = Int32Array.from({ length: n }, (_, i) => i);  // of all, sorted
  let rows = order, page = 0, sorted = -1, upwards = true;

  // ranks of texts are found once, so that sorting compares numbers alone
  const ranks = columns.map(() => null);
  const collator = new Intl.Collator("en", { numeric: true });
  const rank = k => {
    if (ranks[k]) return ranks[k];
    const { kind, values, words } = columns[k];
    if (kind === "number") ranks[k] = Float64Array.from(values, v => v === null ? NaN : v);
    else {
      const texts = kind === "word" ? words : values;
      const of = new Float64Array(texts.length);
      const places = texts.map((_, i) => i).sort((a, b) => collator.compare(texts[a], texts[b]));
      places.forEach((at, r) => { of[at] = r; });
      ranks[k] = kind === "word" ? Float64Array.from(values, v => words[v] === EMPTY ? NaN : of[v]) : of;
    }
    return ranks[k];
  };

  const draw = () => {
    const first = page * PER_PAGE, last = Math.min(first + PER_PAGE, rows.length);
    const fragment = document.createDocumentFragment();
    for (let r = first; r < last; r++) {
      const line = document.createElement("tr");
      columns.forEach((column, k) => {
        const cell = document.createElement(k ? "td" : "th");
        if (!k) cell.scope = "row";
        if (column.kind === "number") cell.className = "number";
        cell.textContent = shown(column, rows[r]);
        line.append(cell);
      });
      fragment.append(line);
    }
    body.replaceChildren(fragment);
    const pages = Math.max(1, Math.ceil(rows.length / PER_PAGE));
    found.textContent = `${rows.length.toLocaleString("en")} of ${n.toLocaleString("en")} particles`;
    place.textContent = `page ${page + 1} of ${pages}`;
    byId("particles-before").disabled = page === 0;
    byId("particles-after").disabled = page + 1 >= pages;
  };

  const filter = () => {
    const wanted = text.value.trim().toLowerCase(), chosen = which.value === EMPTY ? -1 : Number(which.value);
    const from = least.value === EMPTY ? -Infinity : Number(least.value);
    rows = order.filter(i =>
      (chosen < 0 || structure.values[i] === chosen) &&
      (from === -Infinity || (probability && probability.values[i] !== null && probability.values[i] >= from)) &&
      (!wanted || lower[i].includes(wanted) ||
        (micrograph && lowerMicrograph[micrograph.values[i]].includes(wanted))));
    page = 0;
    draw();
  };

  const sort = k => {
    upwards = sorted === k ? !upwards : columns[k].kind !== "number";
    sorted = k;
    const of = rank(k), sign = upwards ? 1 : -1;
    order.sort((a, b) => {
      const x = of[a], y = of[b];
      if (x !== x || y !== y) return x !== x ? (y !== y ? a - b : 1) : -1;  // what is not known comes last
      return x === y ? a - b : sign * (x - y);
    });
    [...head.children].forEach((cell, j) => {
      if (j === k) cell.setAttribute("aria-sort", upwards ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
    filter();
  };

  columns.forEach((column, k) => {
    const cell = document.createElement("th"), button = document.createElement("button");
    cell.scope = "col";
    button.type = "button";
    button.textContent = column.title;
    button.addEventListener("click", () => sort(k));
    cell.append(button);
    head.append(cell);
  });
  structure.words.forEach((word, k) => {
    const option = document.createElement("option");
    option.value = k;
    option.textContent = word || "none yet";
    which.append(option);
  });
  for (const input of [text, least, which]) input.addEventListener("input", filter);
  byId("particles-before").addEventListener("click", () => { page--; draw(); });
  byId("particles-after").addEventListener("click", () => { page++; draw(); });
  byId("particles-table").hidden = false;
  draw();
})();
