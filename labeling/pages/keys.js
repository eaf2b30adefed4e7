// Which key does what. A person may choose other keys; they are kept in this browser, and one key never does two things.

const KEPT = "prefloop.keys";
const WHERE = { any: ["sides", "scale", "ranking"], clips: ["sides", "ranking"], pair: ["sides", "scale"], sides: ["sides"], scale: ["scale"], ranking: ["ranking"] };
const FIXED = { ranking: [..."abcdefghi"] }; // the letters of the answers
const NEVER = ["Escape", "Tab", "Shift", "Control", "Alt", "Meta", "CapsLock", "Dead", "Unidentified"];

const DEFAULTS = {
  left: ["1 is better", "sides", "ArrowLeft", "1"],
  right: ["2 is better", "sides", "2", "ArrowRight"],
  tie: ["Tie", "sides", "0", "="],
  left3: ["1 is significantly better", "scale", "1"],
  left2: ["1 is better, on the scale", "scale", "2", "ArrowLeft"],
  left1: ["1 is slightly better", "scale", "3"],
  equal: ["About equal", "scale", "4", "="],
  right1: ["2 is slightly better", "scale", "5"],
  right2: ["2 is better, on the scale", "scale", "6", "ArrowRight"],
  right3: ["2 is significantly better", "scale", "7"],
  bothBad: ["Both bad", "pair", "b"],
  criteria: ["Go to the criteria", "pair", "c"],
  tieNext: ["Tie with the next one", "ranking", "="],
  back: ["Take the last one out", "ranking", "Backspace"],
  submit: ["Submit the ranking", "ranking", "Enter"],
  allBad: ["All bad", "ranking", "x"],
  skip: ["Skip", "any", "s"],
  play: ["Play or pause the clips", "clips", " "],
  stepBack: ["One frame back", "clips", ","],
  stepOn: ["One frame on", "clips", "."],
  slower: ["Clips slower", "clips", "["],
  faster: ["Clips faster", "clips", "]"],
  loop: ["Loop the clips", "clips", "l"],
  unsafe: ["Flag as unsafe", "any", "w"],
  broken: ["Flag as broken", "any", "r"],
  note: ["Say why", "any", "n"],
  together: ["Scroll together", "any", "y"],
  differences: ["Mark differences", "pair", "v"],
  undo: ["Undo", "any", "u"],
  recent: ["My last answers", "any", "m"],
  guidelines: ["Guidelines", "any", "t"],
  settings: ["Keys and rest", "any", "k"],
};

export class Keymap {
  constructor() {
    this.chosen = {};
    try {
      for (const [id, key] of Object.entries(JSON.parse(localStorage.getItem(KEPT)) ?? {})) {
        if (DEFAULTS[id] && typeof key === "string") this.chosen[id] = key;
      }
    } catch {
      localStorage.removeItem(KEPT); // nobody can mend it by hand
    }
  }

  /** Everything that has a key: [id, title]. */
  get actions() {
    return Object.entries(DEFAULTS).map(([id, [title]]) => [id, title]);
  }

  keysOf(id) {
    return this.chosen[id] ? [this.chosen[id]] : DEFAULTS[id].slice(2);
  }

  /** The keys of an action as they stand on its button. */
  hint(id) {
    return this.keysOf(id).map(written).join(" ");
  }

  /** What a key does on a page of this kind ("sides", "scale" or "ranking"). */
  find(key, kind) {
    return Object.keys(DEFAULTS).find((id) => WHERE[DEFAULTS[id][1]].includes(kind) && this.keysOf(id).includes(key));
  }

  /** Give an action another key. Returns "", or in one line why that cannot be. */
  change(id, key) {
    const kinds = WHERE[DEFAULTS[id][1]];
    if (NEVER.includes(key)) return `${written(key)} cannot be a key: choose another`;
    if (kinds.some((kind) => FIXED[kind]?.includes(key))) return `${written(key)} chooses an answer in rankings: choose another`;
    const other = kinds.map((kind) => this.find(key, kind)).find((found) => found && found !== id);
    if (other) return `${written(key)} is “${DEFAULTS[other][0]}” already: give that another key first`;
    this.chosen[id] = key;
    localStorage.setItem(KEPT, JSON.stringify(this.chosen));
    return "";
  }

  reset() {
    this.chosen = {};
    localStorage.removeItem(KEPT);
  }
}

/** The name of the key of an event, whether or not Shift or Caps Lock made it a capital letter. */
export function keyOf(event) {
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

export function written(key) {
  const signs = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Enter: "⏎", Backspace: "⌫", " ": "space" };
  return signs[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}
