/* Keys, dialogs, and what htmx does not do by itself. No state of its own but the current card and one preference. */
"use strict";
(() => {
  const PREFERENCE = "georefine-keys";
  let current = null; // id of the card the keys act on
  const pressed = new Set(); // ids of cards that a key decided on, whose answers are awaited
  const find = (selector, root = document) => root.querySelector(selector);
  const cards = () => [...document.querySelectorAll("article.card, section.conflict")];
  const parsed = (xhr) => new DOMParser().parseFromString(xhr.responseText, "text/html");
  const keysOn = () => localStorage.getItem(PREFERENCE) !== "off";

  function tell(sentence) {
    const toast = document.getElementById("toast");
    toast.textContent = sentence;
    toast.hidden = false;
    clearTimeout(tell.timer);
    tell.timer = setTimeout(() => { toast.hidden = true; }, 8000);
  }

  // Whoever writes already keeps the focus when an answer to an earlier key comes late.
  const writing = () => document.activeElement?.matches("input:not([type=checkbox]), textarea, select");

  function mark(card, focus) {
    document.querySelectorAll(".card.current").forEach((c) => c.classList.remove("current"));
    if (!card) return;
    current = card.id;
    card.classList.add("current");
    if (focus && !writing()) {
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }
  }

  const chosen = () => document.getElementById(current) || find("#decision");

  function move(step) {
    const all = cards();
    const at = all.findIndex((card) => card.id === current);
    const next = at < 0 ? all[step > 0 ? 0 : all.length - 1] : all[at + step];
    if (next) mark(next, true);
    else find(step > 0 ? "#after" : "#before")?.focus();
  }

  function press(selector) {
    const unit = chosen();
    const button = unit && find(selector, unit);
    if (!button) return;
    if (unit.matches("article.card")) pressed.add(unit.id);
    button.click();
  }

  function edit() {
    const details = chosen() && find("details.edit", chosen());
    if (!details) return;
    details.open = true;
    const area = find("textarea", details);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  const acts = {
    j: () => move(1),
    k: () => move(-1),
    a: () => press("button.accept"),
    x: () => press("button.reject:not(.conflict *)"),
    e: edit,
    z: () => {
      const last = find("#undo-last") || (chosen() && find("button.undo", chosen()));
      if (last) last.click();
    },
    "/": () => find("#search")?.focus(),
    "?": () => document.getElementById("help").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    const area = event.target.closest("textarea");
    if (area && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      area.form.requestSubmit();
    } else if (area && event.key === "Escape") {
      close(area);
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog, [contenteditable]")) return;
    if (!keysOn() || !Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    if (event.repeat && "axz".includes(event.key)) return; // a key that is held decides once
    acts[event.key]();
  });

  function close(inside) {
    const details = inside.closest("details.edit");
    details.open = false;
    find("form", details).reset();
    details.closest(".unit").focus();
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open]");
    if (opener) document.getElementById(opener.dataset.open).showModal();
    const cancel = event.target.closest("[data-cancel]");
    if (cancel) close(cancel);
    const card = event.target.closest("article.card");
    if (card) mark(card, false);
  });
  document.addEventListener("focusin", (event) => {
    const card = event.target.closest("article.card");
    if (card && card.id !== current) mark(card, false);
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.edit") && event.target.open) find("textarea", event.target).focus();
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target.id === "keys-on") localStorage.setItem(PREFERENCE, event.target.checked ? "on" : "off");
    else if (event.target.matches(".search select")) event.target.form.requestSubmit();
  });

  // An image that fails to load says so; the event does not bubble, hence the capture.
  const failed = (image) => image.closest(".frame")?.classList.add("failed");
  document.addEventListener("error", (event) => { if (event.target.tagName === "IMG") failed(event.target); }, true);

  for (const kind of ["pointerover", "focusin", "pointerout", "focusout"]) {
    document.addEventListener(kind, (event) => {
      const region = event.target.closest?.("[data-box]");
      if (region) document.getElementById(region.dataset.box)?.classList.toggle("lit", kind.endsWith("over") || kind === "focusin");
    });
  }

  // Nothing takes the place of text that was typed and not saved, unless its author says so.
  const unsaved = (area) => area.value !== area.defaultValue;
  const typed = (root, but) => [...root.querySelectorAll("details.edit textarea")].some((area) => unsaved(area) && !but?.contains(area));
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { target, elt } = event.detail;
    if (!typed(target, elt) || confirm("Text that you typed here is not saved. Go on without it?")) return;
    event.preventDefault();
    pressed.delete(target.id);
  });
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    if (typed(event.detail.target)) event.detail.shouldSwap = false;
  });
  window.addEventListener("beforeunload", (event) => { if (typed(document)) event.preventDefault(); });

  // Of what is refused only a conflict has something to choose from; the rest is told, and the page stays.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (xhr.status !== 409 || find(".conflict", parsed(xhr))) return;
    event.detail.shouldSwap = false;
    event.detail.isError = true;
  });

  // The server sends what else has changed of what is shown.
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.verb === "post") event.detail.parameters.set("shown", cards().map((card) => card.id).join(" "));
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    const answered = event.detail.target?.id;
    // Who has moved on already stays there.
    if (pressed.delete(answered) && answered === current && !find(`#${CSS.escape(current)}.conflict`)) { move(1); return; }
    const card = document.getElementById(current);
    if (card && event.detail.target?.id !== "facets") mark(card, event.detail.target?.matches?.("article, section, main"));
  });
  document.addEventListener("htmx:sendError", (event) => {
    pressed.delete(event.detail.target?.id);
    tell("Not saved: the page's server cannot be reached. Start georefine review again; your text is still here.");
  });
  document.addEventListener("htmx:responseError", (event) => {
    pressed.delete(event.detail.target?.id);
    const { xhr } = event.detail;
    tell(find("main p", parsed(xhr))?.textContent || xhr.responseText.trim() || "Not saved: the server refused it.");
  });

  const ready = () => {
    document.querySelectorAll("img").forEach((image) => { if (image.complete && !image.naturalWidth && image.currentSrc) failed(image); });
    document.getElementById("keys-on").checked = keysOn();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();
