// What opens over the page: guidelines, a person's last answers, and their keys. Escape closes it, as the browser does it.

import { button, h, said } from "./elements.js";
import { keyOf, written } from "./keys.js";
import { setRest, restMinutes } from "./rest.js";

const SEEN = "prefloop.guidelines";

/** Show `content` over the page, inside `root`. Returns the dialog; `closed()` is called when it is gone. */
function open(root, title, content, closed = () => {}) {
  const dialog = h("dialog", { "aria-label": title });
  const close = button("Close", "Esc", () => dialog.close());
  dialog.append(h("div", { class: "dialoghead" }, h("h2", {}, title), close), content);
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
  });
  root.append(dialog);
  dialog.showModal();
  return dialog;
}

export function isOpen(root) {
  return root.querySelector("dialog") !== null;
}

export function showGuidelines(root, { text, html }) {
  localStorage.setItem(SEEN, text);
  const apart = h("p", {}, h("a", { href: "/guidelines", target: "_blank" }, "On a page of their own"));
  const guide = h("div", { class: "guidelines", tabindex: 0, role: "region", "aria-label": "Guidelines" }, said(text, html), apart);
  open(root, "Guidelines", guide);
}

/** Whether these guidelines are new to this browser. */
export function unseen(guidelines) {
  return guidelines !== null && localStorage.getItem(SEEN) !== guidelines.text;
}

/** List the last answers; `change(answer)` is called with the one that the person wants to change. */
export function showRecent(root, answers, change) {
  const row = (answer) => {
    const question = answer.prompt.at(-1)?.content ?? "";
    const pick = () => {
      dialog.close();
      change(answer);
    };
    const asked = h("span", { class: "asked" }, question.length > 160 ? `${question.slice(0, 160)} …` : question);
    return h("li", {}, asked, h("span", { class: "given" }, inWords(answer)), button("Change", "", pick, "", `Change the answer to: ${question.slice(0, 80)}`));
  };
  const list = answers.length ? h("ol", { class: "recent" }, ...answers.map(row)) : h("p", {}, "You have given no answers yet.");
  const dialog = open(root, "My last answers", list);
}

/** An answer as its person would say it. */
export function inWords({ candidates, answer: { outcome, ranks, unranked, strength } }) {
  if (outcome === "skip") return "skipped";
  if (outcome === "both_bad") return candidates.length === 2 ? "both bad" : "all bad";
  if (candidates.length === 2) {
    if (ranks[0] === ranks[1]) return "equal";
    const much = strength === null ? "" : { 1: "significantly ", 3: "slightly " }[Math.round(1 / strength)] ?? "";
    return `${ranks[0] < ranks[1] ? 1 : 2} is ${much}better`;
  }
  const places = ranks.map((_, place) => place).filter((place) => !unranked.includes(place));
  const sorted = places.sort((a, b) => ranks[a] - ranks[b]);
  return sorted.map((place, n) => (n ? (ranks[place] === ranks[sorted[n - 1]] ? " = " : " › ") : "") + "ABCDEFGHI"[place]).join("");
}

/** Choose keys and when to rest; `changed()` is called when it is over. */
export function showSettings(root, keymap, changed) {
  const note = h("p", { class: "note", role: "status" }, "Choose an action, then press its new key.");
  let asking = null;
  const rows = keymap.actions.map(([id, title]) => {
    const key = button(keymap.hint(id), "", () => ask(id), "key", `${title}: ${keymap.hint(id)}. Change the key`);
    return { id, title, key, element: h("tr", {}, h("th", { scope: "row" }, title), h("td", {}, key)) };
  });
  const refresh = () => {
    for (const { id, title, key } of rows) {
      key.firstChild.textContent = id === asking ? "press a key …" : keymap.hint(id);
      key.setAttribute("aria-label", `${title}: ${keymap.hint(id)}. Change the key`);
    }
  };
  const ask = (id) => {
    asking = id;
    note.textContent = "Press the new key; Escape leaves it as it is.";
    refresh();
  };
  const rest = h("input", { type: "number", min: 0, max: 240, value: restMinutes(), onchange: () => setRest(rest.value) });
  const reset = () => {
    keymap.reset();
    note.textContent = "All keys are as they were.";
    refresh();
  };
  const content = h("div", {},
    note,
    h("table", { class: "keys" }, h("tbody", {}, ...rows.map((row) => row.element))),
    h("p", {}, button("All keys as they were", "", reset)),
    h("p", {}, h("label", {}, "Remind me to rest after ", rest, " minutes (0: never)")));
  const life = new AbortController();
  const pressed = (event) => {
    if (!asking || ["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    event.preventDefault(); // or Escape would close the dialog
    event.stopPropagation();
    const id = asking;
    asking = null;
    const refused = event.key === "Escape" ? "Left as it was." : keymap.change(id, keyOf(event));
    note.textContent = refused || `${rows.find((row) => row.id === id).title} is now ${written(keyOf(event))}.`;
    refresh();
  };
  document.addEventListener("keydown", pressed, { capture: true, signal: life.signal });
  open(root, "Keys and rest", content, () => {
    life.abort();
    changed();
  });
}
