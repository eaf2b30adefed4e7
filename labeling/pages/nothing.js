// What stands on the page when there is no slate to answer: why, and what can be done.

import { button, h } from "./elements.js";

/** `standing`: how things stand; `refusal`: why the server gives nothing, or ""; `turnTo(mode)`: go to what waits there. */
export function nothing({ qualifying, waiting }, { mode, queue, refusal }, turnTo) {
  if (qualifying?.failed) {
    const percent = (share) => `${Math.round(100 * share)} %`;
    return panel("The qualifying round is over",
      `Your answers agreed with the known ones in ${percent(qualifying.agreed)} of the comparisons; ${percent(qualifying.least)} were needed. There are no more slates for you: ask whoever invited you.`);
  }
  if (refusal) return panel("Nothing to label right now", `${refusal[0].toUpperCase()}${refusal.slice(1)}.`);
  const other = mode === "pairs" ? "rankings" : "pairs";
  const more = waiting[other] ? button(`${waiting[other]} ${other} waiting`, "", () => turnTo(other), "primary") : "";
  return queue === "disputed"
    ? panel("Nothing to decide right now", "Here come comparisons on which people contradict each other and that you have not answered.", more)
    : panel("Nothing to label right now", "New comparisons appear here by themselves. A run that has just begun needs a minute or two for its first answers.", more);
}

function panel(title, line, more = "") {
  return h("div", { class: "nothing" }, h("h2", {}, title), h("p", {}, line), more);
}
