// Script of the pages: live updates, clocks, keyboard shortcuts. Everything else is HTML from the server.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const here = () => location.pathname + location.search;

  // -- light and dark ------------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
    drawPlot(true);
  });

  // -- clocks --------------------------------------------------------------------------------------
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const span = (seconds) => {
    const parts = [];
    let rest = Math.abs(Math.round(seconds));
    for (const [size, unit] of UNITS) {
      const many = Math.floor(rest / size);
      rest %= size;
      if (many) parts.push(`${many} ${unit}`);
      if (parts.length === 2 || (parts.length && !many) || (parts.length && size === 3600 && rest >= 0 && unit === "h" && parts.length === 2)) break;
    }
    return parts.join(" ") || "0 s";
  };
  const rough = (seconds) => {
    for (const [size, unit] of UNITS) if (Math.abs(seconds) >= size) return `${Math.floor(Math.abs(seconds) / size)} ${unit}`;
    return "0 s";
  };
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const tick = () => {
    const now = Date.now();
    for (const element of all("[data-ago]")) {
      const seconds = (now - Number(element.dataset.ago)) / 1000;
      say(element, seconds < -1 ? `in ${rough(seconds)}` : seconds < 2 ? "just now" : `${rough(seconds)} ago`);
    }
    for (const element of all("[data-due]")) {
      const seconds = (Number(element.dataset.due) - now) / 1000;
      say(element, seconds > 0 ? `due in ${span(seconds)}` : `${span(seconds)} over`);
      element.classList.toggle("over", seconds <= 0);
      element.classList.toggle("soon", seconds > 0 && seconds < 3600);
    }
  };
  setInterval(tick, 1000);

  // -- live updates -------------------------------------------------------------------------------
  const LEAST_MS = { case: 60, queue: 400, figures: 60 };
  let waiting = null, lastAt = 0, isBusy = false, isAgain = false, newest = 0;
  const shows = (sequence) => Number($("#live")?.dataset.sequence ?? 0) >= sequence;
  // The answer to a command and the stream report the same event: the page is loaded only once.
  const catchUp = (sequence, leastMs) => {
    if (shows(sequence) || (isBusy && newest >= sequence)) return;
    newest = Math.max(newest, sequence);
    refresh(leastMs);
  };
  const refresh = (leastMs = 60) => {
    if (waiting) return;
    waiting = setTimeout(load, Math.max(0, lastAt + leastMs - performance.now()));
  };
  const load = () => {
    waiting = null;
    if (isBusy) { isAgain = true; return; }
    const live = $("#live");
    if (!live || document.hidden || isDragging) return;
    isBusy = true;
    lastAt = performance.now();
    htmx.ajax("GET", here(), { source: live, target: "#live", select: "#live", swap: "morph:outerHTML" })
      .catch(() => {})
      .finally(() => {
        isBusy = false;
        if (isAgain || !shows(newest)) refresh(200);
        isAgain = false;
        newest = 0;
      });
  };
  let stream = null;
  const state = (name, text) => {
    const element = $("#live-state");
    if (!element) return;
    element.className = `live ${name}`;
    say($("span", element), text);
  };
  const topics = () => ($("#live")?.dataset.live ?? "").split(" ");
  const listen = () => {
    if (stream || !document.body.classList.contains("in")) return;
    stream = new EventSource("/stream");
    stream.addEventListener("hello", () => { state("on", "live"); refresh(0); });
    stream.addEventListener("case", (event) => {
      const wanted = $("#live")?.dataset.case;
      if (!topics().includes("case") || topics().includes("figures")) return;
      const { case: changed, sequence } = JSON.parse(event.data);
      if (!wanted) refresh(LEAST_MS.queue);
      else if (changed === wanted) sequence ? catchUp(sequence, LEAST_MS.case) : refresh(LEAST_MS.case);
    });
    for (const topic of ["figures", "rules", "whatif", "people"]) {
      stream.addEventListener(topic, () => { if (topics().includes(topic)) refresh(LEAST_MS.figures); });
    }
    stream.onerror = () => {
      state("off", "reconnecting");
      if (stream.readyState === EventSource.CLOSED) { stream = null; setTimeout(listen, 2000); }
    };
  };
  // A hidden tab closes its stream: a browser allows few connections to one host.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stream?.close(); stream = null; } else listen();
  });
  addEventListener("pagehide", () => stream?.close());

  // -- messages ------------------------------------------------------------------------------------
  document.addEventListener("acted", (event) => {
    for (const dialog of all("dialog[open]")) { dialog.close(); $("form", dialog)?.reset(); }
    const { case: changed, sequence } = event.detail ?? {};
    if (sequence && changed === $("#live")?.dataset.case) catchUp(sequence, 0);
    else refresh(0);
  });
  let fading = null;
  const answered = new Map(); // by case: version in the last answer, which the page may not show yet
  document.addEventListener("htmx:configRequest", (event) => {
    const { parameters, path } = event.detail;
    const known = answered.get(path.split("/")[2]);
    if (known > Number(parameters.seen_sequence)) parameters.seen_sequence = String(known);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id !== "said") return;
    clearTimeout(fading);
    const toast = $("[data-toast]", event.target);
    if (!toast) return;
    if (toast.dataset.sequence) answered.set(toast.dataset.case, Number(toast.dataset.sequence));
    if (toast.dataset.toast === "stay") { all("dialog[open]").forEach((dialog) => dialog.close()); refresh(0); }
    else fading = setTimeout(() => toast.remove(), 8000);
  });
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 401) location.reload();
    else if (event.detail.target?.id === "said") fail(`The console answered ${status}.`);
  });
  document.addEventListener("htmx:sendError", (event) => {
    if (event.detail.target?.id === "said") fail("The console does not answer.");
  });
  const fail = (text) => {
    const toast = document.createElement("div");
    toast.className = "toast bad";
    toast.dataset.toast = "stay";
    toast.setAttribute("role", "alert");
    toast.textContent = text;
    $("#said").replaceChildren(toast);
  };

  // -- dialogs -------------------------------------------------------------------------------------
  const open = (name) => {
    const dialog = document.getElementById(`dialog-${name}`);
    if (!dialog || dialog.open) return;
    const seen = $("[name=seen_sequence]", dialog);
    if (seen) seen.value = $("#live").dataset.sequence;
    dialog.showModal();
    ($("textarea, select, input:not([type=hidden])", dialog) ?? $("button", dialog))?.focus();
  };
  document.addEventListener("click", (event) => {
    const target = event.target;
    const opener = target.closest("[data-dialog]");
    if (opener) { open(opener.dataset.dialog); return; }
    if (target.closest("[data-close]")) target.closest("dialog").close();
    if (target.closest("[data-dismiss]")) target.closest("[data-toast]").remove();
    if (target.matches("dialog")) target.close();
    const row = target.closest("tr[data-case]");
    if (row && !target.closest("a, input, button, label")) { choose(row); if (event.detail === 2) go(row); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("dialog textarea")) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  });

  // -- the queue -----------------------------------------------------------------------------------
  let chosen = null, ticked = new Set(), known = null;
  const rows = () => all("tr[data-case]");
  const choose = (row) => {
    rows().forEach((each) => each.classList.toggle("here", each === row));
    chosen = row?.dataset.case ?? null;
    row?.scrollIntoView({ block: "nearest" });
  };
  const step = (by) => {
    const list = rows();
    if (!list.length) return;
    const at = list.findIndex((row) => row.dataset.case === chosen);
    choose(list[Math.min(list.length - 1, Math.max(0, at < 0 ? 0 : at + by))]);
  };
  const go = (row) => { const link = $("a", row); if (link) location.href = link.href; };
  const showBulk = () => {
    const bulk = $("[data-bulk]");
    if (!bulk) return;
    bulk.hidden = ticked.size === 0;
    say($("[data-bulk-count]", bulk), String(ticked.size));
    const slug = $("[name=slug]", bulk).value;
    for (const part of all("[data-for]", bulk)) part.hidden = !part.dataset.for.split(" ").includes(slug);
  };
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("input[name=case]")) {
      const id = box.closest("tr").dataset.case;
      box.checked ? ticked.add(id) : ticked.delete(id);
      showBulk();
    }
    if (box.matches("[data-bulk] [name=slug]")) showBulk();
  });
  const settle = () => {
    const list = rows();
    for (const row of list) {
      const box = $("input[name=case]", row);
      if (box) box.checked = ticked.has(row.dataset.case);
      row.classList.toggle("here", row.dataset.case === chosen);
      if (known && !known.has(row.dataset.case)) row.classList.add("fresh");
    }
    if (list.length) known = new Set(list.map((row) => row.dataset.case));
    ticked = new Set([...ticked].filter((id) => known?.has(id)));
    showBulk();
    tick();
    drawPlot(false);
  };
  document.addEventListener("htmx:afterSettle", settle);
  document.addEventListener("acted", () => { ticked.clear(); });

  // -- time sliders of a case ----------------------------------------------------------------------
  let isDragging = false;
  const times = new Map(); // by slider: chosen time, kept because a page update replaces the sliders meanwhile
  const when = (ms) => `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC`;
  const stopsOf = (slider) => slider.dataset.stops ? slider.dataset.stops.split(",") : [];
  const moment = (slider) => stopsOf(slider)[Number(slider.value)] ?? null;
  const travel = () => {
    const query = new URLSearchParams(location.search);
    for (const [name, ms] of times) ms === null ? query.delete(name) : query.set(name, ms);
    times.clear();
    const text = query.toString();
    const url = location.pathname + (text ? `?${text}` : "");
    history.replaceState(null, "", url);
    isDragging = false;
    refresh(0);
  };
  let moving = null;
  document.addEventListener("input", (event) => {
    const slider = event.target;
    if (!slider.matches("[data-slider]")) return;
    const ms = moment(slider), text = ms === null ? "now" : when(Number(ms));
    times.set(slider.dataset.slider, ms);
    say($("output", slider.closest("label")), text);
    slider.setAttribute("aria-valuetext", text);
    isDragging = true;
    clearTimeout(moving);
    moving = setTimeout(travel, 120);
  });
  const slide = (by) => {
    const slider = $('[data-slider="known_at_ms"]');
    if (!slider) return;
    const name = slider.dataset.slider, stops = stopsOf(slider);
    const asked = times.has(name) ? times.get(name) : new URLSearchParams(location.search).get(name);
    const place = asked === null ? stops.length : stops.indexOf(asked);
    slider.value = String((place < 0 ? Number(slider.value) : place) + by);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // -- keys ----------------------------------------------------------------------------------------
  let isGoing = false;
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target.closest("dialog:not([open])") ? document.body : event.target; // a closed dialog can still have the focus
    if (target.closest("dialog")) return;
    if (event.key === "Escape") { $("#said")?.replaceChildren(); if (target.matches("input, select, textarea")) target.blur(); return; }
    if (target.matches("textarea, select, input:not([type=checkbox]):not([type=range])")) return;
    const key = event.key;
    if (isGoing) {
      isGoing = false;
      const link = $(`[data-go="${CSS.escape(key)}"]`);
      if (link) { event.preventDefault(); location.href = link.href; }
      return;
    }
    // The page says which key calls which of these; every other key clicks the button that has it.
    const actions = {
      help: () => open("keys"),
      go: () => { isGoing = true; setTimeout(() => { isGoing = false; }, 1200); },
      undo: () => $("[data-undo]")?.click(),
      filter: () => $("#filters input[type=text]")?.focus(),
      earlier: () => slide(-1),
      later: () => slide(1),
      back: () => { const back = $("[data-back]"); if (back) location.href = back.href; },
      nextRow: () => step(1),
      previousRow: () => step(-1),
      tickRow: () => $(`#tick-${CSS.escape(chosen ?? "")}`)?.click(),
      openRow: () => {
        const row = rows().find((each) => each.dataset.case === chosen);
        if (!row || target.closest("a, button, input")) return false;
        go(row);
        return true;
      },
    };
    const shortcuts = JSON.parse(document.body.dataset.shortcuts ?? "{}");
    const act = actions[shortcuts[key]] ?? (() => {
      const button = all("[data-key]").find((each) => each.dataset.key === key && !each.disabled);
      if (!button) return false;
      button.click();
      return true;
    });
    if (act() !== false) event.preventDefault();
  });

  // -- the live plot -------------------------------------------------------------------------------
  let plot = null, drawn = "";
  const drawPlot = (isNew) => {
    const box = $("#plot"), source = $("#series");
    if (!box || !source || typeof uPlot === "undefined") return;
    if (!isNew && source.dataset.series === drawn) return;
    drawn = source.dataset.series;
    const series = JSON.parse(drawn);
    const data = [series.at_s, series.payments, series.flags];
    if (isNew && plot) { plot.destroy(); plot = null; }
    if (plot) { plot.setData(data); return; }
    const style = getComputedStyle(document.body);
    const probe = document.createElement("i");
    box.append(probe);
    const color = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    const [other, flag, quiet, line] = ["--other", "--flag", "--quiet", "--line"].map(color);
    probe.remove();
    const soft = (rgb, share) => rgb.replace("rgb(", "rgba(").replace(")", `, ${share})`);
    const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: `12px ${style.fontFamily}` };
    plot = new uPlot({
      width: box.clientWidth - 20, height: 180, cursor: { y: false }, legend: { show: false }, tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "UTC"),
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(1, max * 1.15)] }, flags: { range: (_, __, max) => [0, Math.max(2, max * 2.5)] } },
      axes: [{ ...axis, space: 84, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toISOString().slice(11, 19)) }, { ...axis, size: 54 }, { ...axis, scale: "flags", side: 1, grid: { show: false }, size: 40 }],
      series: [{}, { stroke: other, width: 1.5, fill: soft(other, .16), points: { show: false } }, { scale: "flags", stroke: flag, width: 1.5, fill: soft(flag, .22), points: { show: false } }],
    }, data, box);
  };
  addEventListener("resize", () => plot?.setSize({ width: $("#plot").clientWidth - 20, height: 180 }));

  document.addEventListener("DOMContentLoaded", () => { settle(); listen(); });
})();
