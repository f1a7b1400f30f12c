"use strict";
// Draws each <figure class="timeline">: probabilities, thresholds, alarms and what the driver did, a panel a task.
(() => {
  const PANEL = 84, GAP = 8, LEFT = 78, CLOSE = 240;
  const ALARMS = ["alarm", "false alarm", "alarm, outcome unknown"];
  const KEYS = { a: ["alarm", ALARMS], m: ["miss", ["missed"]], f: ["false alarm", ["false alarm"]] };
  const COLOURS = { missed: "#d03030", found: "#1a8a45", alarm: "#1a8a45", "false alarm": "#d03030", "alarm, outcome unknown": "#888" };
  let active = null;

  function create(tag, parent, properties = {}) {
    return parent.appendChild(Object.assign(document.createElement(tag), properties));
  }

  function timeline(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent), rows = data.time.length;
    const shown = create("div", figure, { className: "shown" });
    const picture = create("img", shown, { alt: "The frame at the cursor" });
    const canvas = create("canvas", figure), context = canvas.getContext("2d");
    const text = create("output", figure);
    const buttons = create("p", figure);
    let view = [0, rows - 1], row = 0, frame = 0;

    const place = (r) => LEFT + ((r - view[0]) / Math.max(view[1] - view[0], 1)) * (canvas.clientWidth - LEFT);
    const rowAt = (x) => Math.round(view[0] + ((x - LEFT) / (canvas.clientWidth - LEFT)) * (view[1] - view[0]));

    function panel(top, task, ink) {
      const y = (value) => top + PANEL - value * PANEL, [first, last] = view;
      context.fillStyle = "#e0a03055";
      for (let r = first, start = -1; r <= last + 1; r++) {
        const on = r <= last && task.observed[r];
        if (on && start < 0) start = r;
        if (!on && start >= 0) { context.fillRect(place(start), top, Math.max(place(r) - place(start), 1), PANEL); start = -1; }
      }
      context.strokeStyle = ink;
      context.globalAlpha = 0.3;
      context.strokeRect(LEFT, top, canvas.clientWidth - LEFT, PANEL);
      context.globalAlpha = 1;
      context.strokeStyle = "#2a78d0";
      context.beginPath();
      for (let r = first, gap = true; r <= last; r++) {
        const p = task.probability[r];
        if (p !== null) context[gap ? "moveTo" : "lineTo"](place(r), y(p));
        gap = p === null;
      }
      context.stroke();
      if (task.threshold !== null) {
        context.setLineDash([4, 4]);
        context.strokeStyle = ink;
        context.strokeRect(LEFT, y(task.threshold), canvas.clientWidth, 0);
        context.setLineDash([]);
      }
      for (const moment of data.moments) {
        if (moment.task !== task.name || moment.end < first || moment.row > last) continue;
        const x = place(moment.row);
        context.fillStyle = COLOURS[moment.kind];
        if (ALARMS.includes(moment.kind)) context.fillRect(x, top, Math.max(place(moment.end) - x, 2), 6);
        else { context.beginPath(); context.moveTo(x, top + PANEL - 12); context.lineTo(x - 5, top + PANEL); context.lineTo(x + 5, top + PANEL); context.fill(); }
      }
      context.fillStyle = ink;
      context.fillText(task.name, 0, top + PANEL / 2);
    }

    function draw() {
      frame = 0;
      const height = (data.tasks.length + 0.5) * (PANEL + GAP), scale = window.devicePixelRatio || 1;
      canvas.style.height = `${height}px`;
      canvas.width = canvas.clientWidth * scale;
      canvas.height = height * scale;
      context.setTransform(scale, 0, 0, scale, 0, 0);
      context.font = "12px system-ui,sans-serif";
      const ink = getComputedStyle(figure).color;
      data.tasks.forEach((task, index) => panel(index * (PANEL + GAP), task, ink));
      const bottom = data.tasks.length * (PANEL + GAP), fastest = Math.max(...data.speed, 1);
      context.strokeStyle = "#888";
      context.beginPath();
      for (let r = view[0]; r <= view[1]; r++) context.lineTo(place(r), bottom + 40 * (1 - data.speed[r] / fastest));
      context.stroke();
      context.fillText(`0–${Math.round(fastest)} km/h`, 0, bottom + 24);
      context.fillStyle = ink;
      context.fillRect(place(row), 0, 1, height);
      shown.style.transform = `translateX(${Math.min(Math.max(place(row) - shown.offsetWidth / 2, 0), canvas.clientWidth - shown.offsetWidth)}px)`;
      let nearest = row;
      while (nearest > 0 && !data.pictures[nearest]) nearest--;
      const source = data.pictures[nearest];
      const address = source.startsWith("data:") || !source ? source : `${figure.dataset.root}/${source}`;
      if (picture.getAttribute("src") !== address) picture.src = address;
      const values = data.tasks.map((task) => `${task.name} ${task.probability[row] === null ? "–" : task.probability[row].toFixed(2)}`);
      const here = data.moments.filter((moment) => moment.row <= row && row <= moment.end).map((moment) => `${moment.task} ${moment.kind}`);
      text.textContent = [data.time[row], `${Math.round(data.speed[row])} km/h`, ...values, ...here].join(" · ");
      figure.dataset.row = row;
    }

    function go(wanted) {
      row = Math.min(Math.max(wanted, 0), rows - 1);
      if (row < view[0] || row > view[1]) zoom(view[1] - view[0]);
      frame ||= requestAnimationFrame(draw);
    }

    function zoom(width) {
      width = Math.min(Math.max(Math.round(width), 20), rows - 1);
      const start = Math.min(Math.max(row - Math.round(width / 2), 0), rows - 1 - width);
      view = [start, start + width];
      frame ||= requestAnimationFrame(draw);
    }

    function jump(kinds, back) {
      const places = data.moments.filter((moment) => kinds.includes(moment.kind)).map((moment) => moment.row);
      const next = back ? Math.max(...places.filter((r) => r < row)) : Math.min(...places.filter((r) => r > row));
      if (!Number.isFinite(next)) { text.textContent = `None ${back ? "before" : "after"} ${data.time[row]}.`; return; }
      row = next;
      zoom(Math.min(view[1] - view[0], CLOSE));
    }

    function key(event) {
      const name = event.key.toLowerCase(), step = event.shiftKey ? 20 : 1, width = view[1] - view[0];
      if (name in KEYS) jump(KEYS[name][1], event.shiftKey);
      else if (name === "arrowleft") go(row - step);
      else if (name === "arrowright") go(row + step);
      else if (name === "+") zoom(width / 2);
      else if (name === "-") zoom(width * 2);
      else if (name === "0") zoom(rows);
      else return;
      event.preventDefault();
    }

    for (const [letter, [what, kinds]] of Object.entries(KEYS)) {
      create("button", buttons, { type: "button", textContent: `Next ${what} (${letter})`, onclick: (event) => jump(kinds, event.shiftKey) });
    }
    create("span", buttons, { className: "quiet", textContent: " Shift: the one before · ← →: a row · + −: zoom · 0: all" });
    canvas.addEventListener("pointermove", (event) => { active = { key }; go(rowAt(event.offsetX)); });
    figure.addEventListener("focusin", () => { active = { key }; });
    window.addEventListener("resize", () => go(row));
    return { key, go };
  }

  const all = [...document.querySelectorAll("figure.timeline")].map(timeline);
  active = all[0];
  document.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest("input,textarea,select")) active?.key(event);
  });
  const follow = () => all[0]?.go(Number(/^#row-(\d+)$/.exec(location.hash)?.[1] ?? 0));
  window.addEventListener("hashchange", follow);
  all.slice(1).forEach((each) => each.go(0));
  follow();
})();
