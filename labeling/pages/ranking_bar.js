// The ranking of a slate while it is made: by letters, by clicks, by dragging with mouse or finger, and by the arrow keys.
// The best stands first. Nothing is ranked until the person does it, so an order that nobody touched is never sent.

import { draggable } from "./dragging.js";
import { button, h, once } from "./elements.js";
import { before, into, joined, parted, rankOf, stepped, without } from "./ranking.js";
import { LETTERS, ordinal } from "./slate.js";

export class RankingBar {
  /** `draft` {groups, tieNext} is written to; `changed(line)` is called then, with what happened in words, and the bar is
   *  made anew by `refresh`. `submit()`: the person is done. `k` places, each called a `noun`. */
  constructor(draft, k, noun, keymap, { changed, submit }) {
    Object.assign(this, { draft, k, noun, keymap, changed, submit });
    this.strip = h("div", { class: "strip", role: "group", "aria-label": "Your ranking, best first" });
    this.element = h("div", { class: "main" });
    this.refresh();
  }

  get missing() {
    return [...Array(this.k).keys()].filter((place) => !rankOf(this.draft.groups, place));
  }

  // What the person does

  set(groups, tieNext = false) {
    Object.assign(this.draft, { groups, tieNext });
    this.refresh();
    this.changed(this.inWords());
  }

  inWords() {
    const { groups } = this.draft;
    return groups.map((group, g) => `${ordinal(g + 1)}: ${group.map((place) => LETTERS[place]).join(" and ")}`).join(", ") || "Nothing is ranked";
  }

  /** Put a place at the end of the ranking, or take it out if it is in. */
  place(place) {
    const { groups, tieNext } = this.draft;
    if (rankOf(groups, place)) this.set(without(groups, place));
    else this.set(tieNext && groups.length ? into(groups, groups.length - 1, place) : [...groups, [place]]);
  }

  tieNext() {
    const { groups, tieNext } = this.draft;
    this.set(groups, groups.length > 0 && this.missing.length > 0 && !tieNext);
  }

  back() {
    const { groups, tieNext } = this.draft;
    if (tieNext || !groups.length) this.set(groups);
    else this.set(without(groups, groups.at(-1).at(-1)));
  }

  /** How `place` is dragged, from a card or a chip. */
  drag(place) {
    return {
      over: (x, y) => this.show(x === null ? null : this.targetAt(x, y)),
      drop: (x, y) => {
        const target = this.targetAt(x, y);
        this.show(null);
        if (target) this.drop(place, target.dataset);
      },
    };
  }

  drop(place, { gap, group }) {
    const { groups } = this.draft;
    if (gap !== undefined) this.set(before(groups, Number(gap), place));
    else if (group !== undefined) this.set(into(groups, Number(group), place));
    else this.set(without(groups, place));
  }

  targetAt(x, y) {
    const found = document.elementFromPoint(x, y);
    if (!found || !this.strip.contains(found)) return null;
    return found.closest("[data-gap], [data-group], .pool") ?? this.strip.querySelector("[data-gap]:last-of-type, .end");
  }

  show(target) {
    this.strip.querySelectorAll(".over").forEach((element) => element.classList.remove("over"));
    this.strip.classList.toggle("dragging", target !== null);
    target?.classList.add("over");
  }

  /** The keys of a focused chip. */
  pressed(event, place) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const { groups } = this.draft;
    if (event.key === "Delete") this.set(without(groups, place));
    else if (step && rankOf(groups, place)) this.set(stepped(groups, place, step));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  get acts() {
    return { tieNext: () => this.tieNext(), back: () => this.back(), submit: this.submit };
  }

  // What is shown

  refresh() {
    const focused = document.activeElement?.dataset?.place;
    const { groups, tieNext } = this.draft;
    const groupOf = (group, g) => h("span", { class: "group", "data-group": g },
      ...group.flatMap((place, n) => [
        n ? button("=", "", () => this.set(parted(groups, g, n)), "join tied", "Not a tie") : "",
        this.chip(place, `${ordinal(g + 1)}: ${LETTERS[place]}, take it out; the arrow keys move it`),
      ]));
    const gap = (g) => g
      ? h("span", { class: "gap", "data-gap": g }, button("›", "", () => this.set(joined(groups, g)), "join", "Tie with the one before"))
      : h("span", { class: "gap", "data-gap": 0 });
    const hint = groups.length ? "next best" : `drag here, or press the letter of the best ${this.noun}`;
    const end = h("span", { class: "gap end", "data-gap": groups.length },
      this.missing.length ? h("span", { class: "next" }, `${tieNext ? "=" : groups.length ? "›" : ""} ${hint} …`) : "");
    const pool = h("span", { class: "pool" }, ...this.missing.map((place) => this.chip(place, `Rank ${LETTERS[place]} next`)));
    this.strip.replaceChildren(h("span", { class: "best" }, "best"), ...groups.flatMap((group, g) => [gap(g), groupOf(group, g)]), end, pool);
    const complete = !this.missing.length;
    this.element.replaceChildren(
      button("Tie with next", this.keymap.hint("tieNext"), () => this.tieNext(), tieNext ? "on" : ""),
      button("Back", this.keymap.hint("back"), () => this.back()),
      button("Submit", this.keymap.hint("submit"), (event) => once(event, this.submit), complete ? "primary" : ""));
    if (focused !== undefined) this.strip.querySelector(`[data-place="${focused}"]`)?.focus();
  }

  chip(place, name) {
    const chip = button(LETTERS[place], "", () => this.place(place), "chip", "", name);
    chip.dataset.place = place;
    chip.addEventListener("keydown", (event) => this.pressed(event, place));
    draggable(chip, this.drag(place));
    return chip;
  }
}
