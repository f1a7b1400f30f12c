"use strict";
// Tags of the review queue: by keyboard, stored at once, and those of other people shown within seconds.
(() => {
  const list = document.querySelector(".review"), clips = [...list.querySelectorAll("article")];
  const who = list.querySelector("input[name=who]"), status = list.querySelector("output");
  const names = JSON.parse(list.dataset.names), address = `${list.dataset.root}/review_queue/tags`;
  let place = Math.max(0, clips.findIndex((clip) => !clip.dataset.tag));
  who.value = localStorage.getItem("reviewer") || "";
  who.addEventListener("input", () => localStorage.setItem("reviewer", who.value));

  function show(tags) {
    for (const clip of clips) {
      const tag = tags[clip.id.slice(2)];
      clip.dataset.tag = tag?.tag ?? "";
      clip.querySelector(".tag").textContent = tag && (tag.tag || tag.note) ? `${tag.tag || "note"} — ${tag.who}, ${tag.at}` : "";
      const note = clip.querySelector("textarea");
      if (document.activeElement !== note) note.value = tag?.note ?? "";
    }
    status.textContent = `${clips.filter((clip) => clip.dataset.tag).length} of ${clips.length} tagged`;
  }

  async function ask(options) {
    const answer = await fetch(address, { credentials: "same-origin", ...options });
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
  }

  async function store(clip, tag) {
    if (!who.value.trim()) { status.textContent = "Enter your name first."; who.focus(); return false; }
    const [recording, time, task, kind] = clip.id.slice(2).split("|");
    const body = JSON.stringify({ recording, time, task, kind, tag, note: clip.querySelector("textarea").value, who: who.value });
    try { await ask({ method: "POST", headers: { "Content-Type": "application/json" }, body }); return true; }
    catch (error) { status.textContent = `Not stored: ${error.message}`; return false; }
  }

  function go(to) {
    clips[place]?.classList.remove("active");
    place = Math.min(Math.max(to, 0), clips.length - 1);
    clips[place]?.classList.add("active");
    clips[place]?.scrollIntoView({ block: "center" });
  }

  document.addEventListener("keydown", async (event) => {
    const clip = clips[place], note = clip?.querySelector("textarea");
    if (event.target === note) {
      if (event.key === "Enter") { event.preventDefault(); if (await store(clip, clip.dataset.tag)) note.blur(); }
      if (event.key === "Escape") note.blur();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input,textarea,button") || !clip) return;
    if (event.key === "j" || event.key === "k") go(place + (event.key === "j" ? 1 : -1));
    else if (event.key === "n") note.focus();
    else if (event.key === "0") store(clip, "");
    else if (names[event.key - 1]) { const at = place; if (await store(clip, names[event.key - 1]) && place === at) go(place + 1); }
    else return;
    event.preventDefault();
  });
  for (const [number, clip] of clips.entries()) clip.addEventListener("focusin", () => { if (number !== place) go(number); });
  setInterval(() => document.hidden || ask({}).catch((error) => { status.textContent = `Not current: ${error.message}`; }), 5000);
  ask({}).catch(() => {});
  if (clips.length) clips[place].classList.add("active");
})();
