// A slate on the page: what was asked, and the answers or clips as cards.

import { draggable } from "./dragging.js";
import { h, said } from "./elements.js";

export const LETTERS = "ABCDEFGHI";

export class SlateView {
  /** `player`: of a slate that shows clips; `keymap`: of its keys. `act.choose(place, event)` is called for a click on a card; `act.drag` moves
   *  the card of a ranking. */
  constructor(slate, player, keymap, act) {
    this.slate = slate;
    this.keymap = keymap;
    this.player = player;
    this.act = act;
    this.pair = slate.candidates.length === 2;
    this.cards = slate.candidates.map((candidate, place) => this.card(candidate, place));
    this.elements = this.layout();
  }

  layout() {
    const k = this.slate.candidates.length;
    const grid = this.player ? `clips ${this.pair ? "pairs" : "rankings"}` : this.pair ? "two tall" : k === 4 ? "two" : "";
    const columns = k <= 6 ? k : Math.ceil(k / 2);
    const cards = h("div", { class: `cards new ${grid}`, style: `--columns: ${columns}` }, ...this.cards);
    return [this.slate.prompt.length ? conversation(this.slate.prompt) : "", cards, this.player ? this.player.makeControls(this.keymap) : ""];
  }

  card(candidate, place) {
    const choose = (event) => {
      if (getSelection().isCollapsed) this.act.choose(place, event); // else the person marks text
    };
    const cut = candidate.finished === false;
    const grip = this.pair ? "" : h("span", { class: "grip", "aria-hidden": "true", title: "Drag it into the ranking" }, "⠿");
    if (grip) draggable(grip, this.act.drag(place));
    const head = h("div", { class: "cardhead" },
      h("kbd", { class: "big" }, keyOfPlace(place, this.slate.candidates.length)),
      h("span", { class: "title" }),
      cut ? h("span", { class: "cut", title: "It reached the length limit" }, "cut off") : "",
      grip);
    const body = () => h("div", { class: "said" }, said(candidate.text, candidate.html), cut ? h("span", { class: "ellipsis" }, " …") : "");
    const label = this.nameOf(place);
    return h("article", { class: "card", "aria-label": label, onclick: choose }, head, this.player ? this.player.screens[place].element : body());
  }

  /** The elements that hold the texts; none of clips. */
  get texts() {
    return this.player ? [] : this.cards.map((card) => card.querySelector(".said"));
  }

  nameOf(place) {
    const key = keyOfPlace(place, this.slate.candidates.length);
    return this.player ? `Clip ${key}` : `Answer ${key}`;
  }

  /** Bring to the cards how they are ranked (0 = not at all). They stay, or their videos would start again. */
  refresh(rankOf) {
    this.cards.forEach((card, place) => {
      const rank = this.pair ? 0 : rankOf(place);
      card.classList.toggle("placed", rank > 0);
      const name = this.nameOf(place);
      const title = this.pair || (this.player && !rank) ? name : !rank ? "not ranked" : this.player ? `${name} · ${ordinal(rank)}` : ordinal(rank);
      card.querySelector(".title").textContent = title;
    });
  }

  picked(place) {
    this.cards[place].classList.add("picked");
  }
}

function conversation(messages) {
  const turns = messages.map((message) => h("div", { class: `turn ${message.role}` },
    h("span", { class: "role" }, messages.length === 1 ? "prompt" : message.role),
    said(message.content, message.html)));
  const name = messages.length === 1 ? "Question" : `Conversation of ${messages.length} turns`;
  return h("section", { class: "prompt", tabindex: 0, "aria-label": name }, ...turns);
}

/** The key of a place, among `k`. */
export function keyOfPlace(place, k) {
  return k === 2 ? String(place + 1) : LETTERS[place];
}

export function ordinal(rank) {
  return `${rank}${["th", "st", "nd", "rd"][rank] ?? "th"}`;
}
