"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);

  // Arrays travel as little-endian bytes in base64.
  function bytes(text) {
    const binary = atob(text);
    const out = new Uint8Array(binary.length);
    for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
    return out;
  }
  const ints = (text) => new Int32Array(bytes(text).buffer);
  const floats = (text) => new Float32Array(bytes(text).buffer);
  function images(kind) {
    return { names: kind.names, pids: ints(kind.pids), camids: ints(kind.camids) };
  }

  const query = images(data.query);
  const gallery = images(data.gallery);
  const count = query.names.length;
  const precision = floats(data.precision);
  const found = ints(data.found);
  const distances = floats(data.distances);
  const missed = ints(data.missed);
  const missedDistances = floats(data.missed_distances);
  const ranks = ints(data.ranks);
  const rankStarts = ints(data.rank_starts);
  const hardest = ints(data.hardest);
  const maps = bytes(data.maps);
  const palette = bytes(data.palette);
  const stages = data.stages;
  const [mapHeight, mapWidth] = data.map_size;
  document.documentElement.style.setProperty("--ratio", data.ratio);

  // Thumbnails: queries, then gallery images; in this page or in files beside it.
  const encoded = byId("thumbnails").textContent;
  const starts = data.starts === null ? null : ints(data.starts);
  function thumbnail(i) {
    if (starts !== null) {
      return "data:image/webp;base64," + encoded.slice(starts[i], starts[i + 1]);
    }
    return `${data.folder}/${Math.floor(i / 1000)}/${i}.webp`;
  }

  const matchesOf = (q) => rankStarts[q + 1] - rankStarts[q];
  const firstOf = (q) => (matchesOf(q) ? ranks[rankStarts[q]] : 0);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const whole = (number) => number.toLocaleString("en");
  const identity = (pid) => data.identities[pid] ?? String(pid);
  // "" if cameras are not known.
  const place = (camid) => data.cameras[camid] ?? String(camid);
  const seen = (word, camid) => (place(camid) ? [[`${word} ${place(camid)}`]] : []);
  const who = (pid) => (pid > 0 ? `identity ${identity(pid)}` : "distractor");
  function distance(value) {
    const size = Math.abs(value);
    if (size >= 1000) return whole(Math.round(value));
    return size !== 0 && size < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
  }

  // What others named goes through textContent and attributes alone.
  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function picture(index, text) {
    const image = make("img");
    image.alt = text;
    image.decoding = "async";
    image.draggable = false;
    image.src = thumbnail(index);
    return image;
  }

  function cell(tag, tagClass, frame, caption) {
    const figure = make("figure");
    const below = make("figcaption");
    for (const [text, className] of caption) {
      const line = make("div", className, text);
      line.title = text;
      below.append(line);
    }
    figure.append(make("div", `tag ${tagClass}`, tag), frame, below);
    return figure;
  }

  const mapStart = (q, stage) => (q * stages.length + stage) * mapHeight * mapWidth;
  function hasMap(q, stage) {
    const start = mapStart(q, stage);
    return maps.subarray(start, start + mapHeight * mapWidth).some((value) => value > 0);
  }

  // A stage's map enlarged bilinearly, its colours over the grey image as in eval.py --figures.
  function overlay(q, stage, height, width) {
    const canvas = make("canvas");
    canvas.height = height;
    canvas.width = width;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    const offset = mapStart(q, stage);
    const place = (i, from, to) => Math.min(Math.max(((i + 0.5) * to) / from - 0.5, 0), to - 1);
    for (let y = 0, p = 0; y < height; y++) {
      const v = place(y, height, mapHeight);
      const top = Math.floor(v);
      const down = v - top;
      const above = offset + top * mapWidth;
      const below = offset + Math.min(top + 1, mapHeight - 1) * mapWidth;
      for (let x = 0; x < width; x++, p += 4) {
        const u = place(x, width, mapWidth);
        const left = Math.floor(u);
        const right = Math.min(left + 1, mapWidth - 1);
        const across = u - left;
        const upper = maps[above + left] * (1 - across) + maps[above + right] * across;
        const lower = maps[below + left] * (1 - across) + maps[below + right] * across;
        const value = upper * (1 - down) + lower * down;
        const color = 3 * Math.round(value);
        pixels.data[p] = palette[color];
        pixels.data[p + 1] = palette[color + 1];
        pixels.data[p + 2] = palette[color + 2];
        pixels.data[p + 3] = 255 * 0.75 * Math.sqrt(value / 255);
      }
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  function queryCell(q) {
    const frame = make("div", "frame self");
    frame.append(picture(q, `Query of identity ${identity(query.pids[q])}`));
    return cell("Query", "", frame, [[`id ${identity(query.pids[q])}`], ...seen("cam", query.camids[q])]);
  }

  function mapCells(q) {
    return stages.map((stage, s) => {
      const frame = make("div", "frame cam");
      const map = overlay(q, s, 128, Math.max(1, Math.round(128 * data.ratio)));
      const zero = !hasMap(q, s);
      map.setAttribute("role", "img");
      map.setAttribute("aria-label", `Grad-CAM of ${stage}${zero ? ", zero everywhere" : ""}`);
      frame.append(picture(q, ""), map);
      return cell(stage, "plain", frame, zero ? [["Grad-CAM"], ["all zero", "zero"]] : [["Grad-CAM"]]);
    });
  }

  // One image of the gallery with its rank.
  function foundCell(q, g, rank, value, large) {
    const right = gallery.pids[g] === query.pids[q] && gallery.pids[g] > 0;
    const verdict = right ? "right" : "wrong";
    const frame = make("div", `frame ${verdict}`);
    frame.append(picture(count + g, `Rank ${whole(rank)}, ${verdict}: ${who(gallery.pids[g])}`));
    const id = gallery.pids[g] > 0 ? `id ${identity(gallery.pids[g])}` : "distractor";
    const far = distance(value);
    const camera = data.cameras[gallery.camids[g]] ?? `c${gallery.camids[g]}`;
    const caption = large
      ? [[id], ...seen("cam", gallery.camids[g]), [`distance ${far}`], [gallery.names[g], "name"]]
      : [[id], [camera ? `${camera} · ${far}` : far]];
    return cell(`${whole(rank)} ${right ? "✓" : "✗"}`, right ? "good" : "bad", frame, caption);
  }

  // The nearest images, and the first match if it is not among them.
  function listCells(q, large) {
    const cells = [];
    for (let r = 0; r < data.length; r++) {
      const g = found[q * data.length + r];
      if (g < 0) break;
      cells.push(foundCell(q, g, r + 1, distances[q * data.length + r], large));
    }
    if (missed[q] >= 0) {
      cells.push(foundCell(q, missed[q], firstOf(q), missedDistances[q], large));
      cells.at(-1).classList.add("missed");
    }
    return cells;
  }

  function verdict(q) {
    if (!matchesOf(q)) return { text: "no match in the gallery", right: null };
    const first = firstOf(q);
    if (first === 1) return { text: "✓ right at rank 1", right: true };
    return { text: `✗ first right match at rank ${whole(first)}`, right: false };
  }

  function label(q) {
    const score = matchesOf(q) ? `average precision ${percent(precision[q])}, ` : "";
    const words = verdict(q).text.replace(/^[✓✗] /, "");
    const whom = [who(query.pids[q]), ...seen("camera", query.camids[q])].join(", ");
    return `Query ${q + 1}: ${whom}, ${score}${words}`;
  }

  // One element a query, empty but where it is near the window.
  const items = Array.from({ length: count }, (_, q) => {
    const item = make("div", "query");
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", "false");
    item.setAttribute("aria-label", label(q));
    item.tabIndex = -1;
    item.dataset.query = q;
    if (missed[q] >= 0) item.classList.add("late");
    return item;
  });

  function fill(item) {
    if (item.firstChild) return;
    const q = Number(item.dataset.query);
    const { text, right } = verdict(q);
    const line = make("div", "line");
    line.append(
      make("b", "", `Identity ${identity(query.pids[q])}`),
      ...seen("camera", query.camids[q]).map(([text]) => make("span", "", text)),
      make("span", right === null ? "" : right ? "good" : "bad", text)
    );
    if (right !== null) {
      line.append(make("span", "extra", `${whole(matchesOf(q))} ${matchesOf(q) === 1 ? "match" : "matches"}`));
      line.append(make("span", "", `AP ${percent(precision[q])}`));
    }
    line.append(make("span", "name", query.names[q]));
    const strip = make("div", "strip");
    strip.append(queryCell(q), ...listCells(q, false));
    if (stages.length) strip.append(make("div", "gap"), ...mapCells(q));
    item.append(line, strip);
  }

  // All rows of a kind are equally high, so that empty ones leave the right space.
  function measure() {
    for (const isMissed of [false, true]) {
      const q = missed.findIndex((g) => g >= 0 === isMissed);
      if (q < 0) continue;
      const probe = make("div", "query probe");
      probe.dataset.query = q;
      fill(probe);
      byId("list").append(probe);
      document.documentElement.style.setProperty(isMissed ? "--row-missed" : "--row", `${probe.offsetHeight}px`);
      probe.remove();
    }
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) fill(entry.target);
        else entry.target.replaceChildren();
      }
    },
    { rootMargin: "900px 0px" }
  );
  for (const item of items) near.observe(item);

  // Filters.
  const search = byId("search");
  const camera = byId("camera");
  const order = byId("order");
  const filters = byId("filters");
  const lower = query.names.map((name) => name.toLowerCase());
  const people = Array.from(query.pids, (pid) => identity(pid).toLowerCase());
  const number = /^\d+$/;
  const numbered = people.some((name) => number.test(name));
  let shown = [];
  let current = -1;

  for (const pid of [...new Set(query.pids)].sort((a, b) => a - b)) {
    const option = make("option");
    option.value = identity(pid);
    byId("identities").append(option);
  }
  camera.parentElement.hidden = Object.values(data.cameras).includes("");
  for (const camid of [...new Set(query.camids)].sort((a, b) => a - b)) {
    const option = make("option", "", place(camid));
    option.value = camid;
    camera.append(option);
  }

  function fits(q, terms, failures) {
    if (camera.value !== "" && query.camids[q] !== Number(camera.value)) return false;
    if (failures && firstOf(q) === 1) return false;
    // A number is an identity, if any is called by one; all else is part of a person's or file's name.
    return terms.every((term) =>
      numbered && number.test(term)
        ? number.test(people[q]) && Number(people[q]) === Number(term)
        : lower[q].includes(term) || people[q].includes(term)
    );
  }

  function apply() {
    const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const failures = filters.elements.which.value === "failures";
    const ordered = order.value === "hardest" ? Array.from(hardest) : items.map((_, q) => q);
    const fitting = ordered.filter((q) => fits(q, terms, failures));
    const matched = fitting.filter((q) => matchesOf(q));
    const unmatched = fitting.filter((q) => !matchesOf(q));
    shown = matched.concat(unmatched);
    byId("matched").replaceChildren(...matched.map((q) => items[q]));
    byId("unmatched").replaceChildren(...unmatched.map((q) => items[q]));
    byId("unmatched").hidden = byId("unmatched-title").hidden = !unmatched.length;
    byId("nothing").hidden = shown.length > 0;
    byId("count").textContent = `${whole(shown.length)} of ${whole(count)} ${count === 1 ? "query" : "queries"}`;
    select(shown.includes(current) ? current : -1);
  }

  // The list has one stop for the Tab key: the current query, or the first.
  function select(q) {
    if (current >= 0) items[current].setAttribute("aria-selected", "false");
    for (const item of document.querySelectorAll('.query[tabindex="0"]')) item.tabIndex = -1;
    current = q;
    if (q >= 0) items[q].setAttribute("aria-selected", "true");
    const stop = q >= 0 ? q : shown[0];
    if (stop !== undefined) items[stop].tabIndex = 0;
  }

  function go(position) {
    if (!shown.length) return;
    const q = shown[Math.min(Math.max(position, 0), shown.length - 1)];
    select(q);
    items[q].scrollIntoView({ block: "nearest" });
    if (view.open) draw(q);
    else items[q].focus({ preventScroll: true });
  }

  function move(by) {
    if (current >= 0) return go(shown.indexOf(current) + by);
    // Nothing is current: begin with what is seen.
    const top = filters.getBoundingClientRect().bottom;
    go(Math.max(shown.findIndex((q) => items[q].getBoundingClientRect().top >= top - 1), 0));
  }

  // The large view.
  const view = byId("view");
  const help = byId("help");
  let viewed = -1;

  // Ranks of all matches on a logarithmic axis.
  function rankAxis(q) {
    const SVG = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(SVG, "svg");
    const draw = (tag, attributes, text) => {
      const element = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (text !== undefined) element.textContent = text;
      svg.append(element);
    };
    const own = Array.from(ranks.subarray(rankStarts[q], rankStarts[q + 1]));
    const last = Math.max(10, data.gallery_size);
    const at = (rank) => 8 + 984 * (Math.log(rank) / Math.log(last));
    svg.setAttribute("class", "ranks");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Ranks of the matches: ${own.join(", ")}`);
    draw("line", { x1: "0.8%", x2: "99.2%", y1: 14, y2: 14 });
    for (let rank = 1; rank <= last; rank *= 10) {
      const x = `${at(rank) / 10}%`;
      draw("line", { x1: x, x2: x, y1: 8, y2: 20 });
      draw("text", { x, y: 38 }, whole(rank));
    }
    for (const rank of own) draw("circle", { cx: `${at(rank) / 10}%`, cy: 14, r: 5 });
    return svg;
  }

  function draw(q) {
    viewed = q;
    const position = shown.indexOf(q);
    const whom = [`Identity ${identity(query.pids[q])}`, ...seen("camera", query.camids[q])];
    byId("view-title").textContent = whom.join(", ");
    const { text, right } = verdict(q);
    const facts = make("dl", "facts");
    const fact = (name, value, className) => {
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", className, value));
      facts.append(pair);
    };
    fact("Result", text, right === null ? "" : right ? "good" : "bad");
    if (right !== null) fact("Average precision", percent(precision[q]));
    if (right !== null) fact("Matches in the gallery", whole(matchesOf(q)));
    fact("Shown", `${whole(position + 1)} of ${whole(shown.length)}`);
    fact("File", query.names[q]);
    const strip = (className, cells) => {
      const element = make("div", `strip ${className}`);
      element.append(...cells);
      return element;
    };
    const heading = `Nearest in the gallery${missed[q] >= 0 ? ", and the first right match" : ""}`;
    const parts = [facts, make("h3", "", heading), strip("found", [queryCell(q), ...listCells(q, true)])];
    if (right !== null) parts.push(make("h3", "", "Ranks of the right matches"), rankAxis(q));
    if (stages.length) parts.push(make("h3", "", "Grad-CAM"), strip("maps", mapCells(q)));
    byId("view-body").replaceChildren(...parts);
    byId("previous").disabled = position <= 0;
    byId("next").disabled = position >= shown.length - 1;
    // A button that is switched off would take the keyboard with it.
    if (view.open && document.activeElement.disabled !== false) byId("view-title").focus();
  }

  function open(q) {
    select(q);
    draw(q);
    view.showModal();
    view.scrollTop = 0;
  }
  view.addEventListener("close", () => {
    byId("view-body").replaceChildren();
    // The browser gives the focus back to where the view was opened; one may have gone on since.
    items[viewed].focus({ preventScroll: true });
  });
  for (const dialog of [view, help]) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
  byId("close").addEventListener("click", () => view.close());
  byId("close-help").addEventListener("click", () => help.close());
  byId("show-help").addEventListener("click", () => help.showModal());
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));

  byId("list").addEventListener("click", (event) => {
    const item = event.target.closest(".query");
    if (item) open(Number(item.dataset.query));
  });
  byId("list").addEventListener("focusin", (event) => {
    if (event.target.matches(".query")) select(Number(event.target.dataset.query));
  });
  search.addEventListener("input", apply);
  filters.addEventListener("change", (event) => {
    if (event.target !== search) apply();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => {
    filters.reset();
    apply();
    search.focus();
  });

  // In the large view the upright arrows, Home and End scroll it.
  const STEPS = { j: 1, k: -1 };
  const LIST_STEPS = { ArrowDown: 1, ArrowUp: -1 };
  const VIEW_STEPS = { ArrowRight: 1, ArrowLeft: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const target = event.target;
    if (target.matches("input, select")) {
      if (event.key === "Escape" || (event.key === "Enter" && target === search)) {
        event.preventDefault();
        target.blur();
        go(Math.max(shown.indexOf(current), 0));
      }
      return;
    }
    const { key } = event;
    const step = STEPS[key] ?? (view.open ? VIEW_STEPS : LIST_STEPS)[key];
    if (step !== undefined) {
      move(step);
    } else if (key === "?") {
      help.showModal();
    } else if (view.open) {
      return;
    } else if (key === "Home" || key === "End") {
      go(key === "Home" ? 0 : shown.length - 1);
    } else if (key === "/") {
      search.focus();
      search.select();
    } else if ((key === "Enter" || key === " ") && target.matches(".query")) {
      open(Number(target.dataset.query));
    } else {
      return;
    }
    event.preventDefault();
  });

  // Paper gets the first of what is shown.
  const PRINTED = 60;
  window.addEventListener("beforeprint", () => {
    near.disconnect();
    shown.forEach((q, i) => (i < PRINTED ? fill(items[q]) : items[q].replaceChildren()));
    for (const image of document.images) image.decoding = "sync";
    byId("printed").textContent = `The first ${whole(Math.min(PRINTED, shown.length))} of ${whole(shown.length)} ${shown.length === 1 ? "query" : "queries"}.`;
  });
  window.addEventListener("afterprint", () => {
    for (const item of items) near.observe(item);
  });

  let width = 0;
  new ResizeObserver(() => {
    if (byId("list").clientWidth === width) return;
    width = byId("list").clientWidth;
    measure();
  }).observe(byId("list"));
  apply();
})();
