// The answers to a pair: which side, or on a scale how much better.

import { button, h, once } from "./elements.js";

// Strengths as Llama 2 asks for them (arXiv 2307.09288), as equal steps from 0 to 1.
const SCALE = [
  ["left3", "1 significantly", [1, 2], 1],
  ["left2", "1 better", [1, 2], 2 / 3],
  ["left1", "1 slightly", [1, 2], 1 / 3],
  ["equal", "About equal", [1, 1], 0],
  ["right1", "2 slightly", [2, 1], 1 / 3],
  ["right2", "2 better", [2, 1], 2 / 3],
  ["right3", "2 significantly", [2, 1], 1],
];
const SIDES = [
  ["left", "1 is better", [1, 2], null],
  ["tie", "Tie", [1, 1], null],
  ["right", "2 is better", [2, 1], null],
];

export class PairBar {
  /** `answer(ranks, strength)` is called with what the person chooses. `scale`: ask how much better. */
  constructor(scale, clips, keymap, answer) {
    this.choices = scale ? SCALE : SIDES;
    this.answer = answer;
    const buttons = this.choices.map(([id, title, ranks, strength]) => {
      const name = id === "tie" && clips ? "Equal" : title;
      const kind = ranks[0] === ranks[1] ? "" : scale ? "side" : "primary";
      return button(name, keymap.hint(id), (event) => once(event, () => this.answer(ranks, strength)), kind);
    });
    this.element = h("div", { class: `main ${scale ? "scale" : ""}`, role: "group", "aria-label": "Which is better?" }, ...buttons);
  }

  /** What each key does, by the name of the action. */
  get acts() {
    return Object.fromEntries(this.choices.map(([id, , ranks, strength]) => [id, () => this.answer(ranks, strength)]));
  }
}
