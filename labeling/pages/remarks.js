// What an answer can say beside the comparison: flags, choices by single criteria, and why.

import { button, h } from "./elements.js";

const FLAGS = { unsafe: "Unsafe", broken: "Broken" };
const CHOICES = { left: "1", tie: "=", right: "2" };

export class Remarks {
  /** `draft` {flags, criteria, note} is written to, and `changed()` called then. `criteria`: names to ask about. */
  constructor(draft, criteria, keymap, changed) {
    this.draft = draft;
    this.names = criteria;
    this.changed = changed;
    this.flags = Object.fromEntries(Object.entries(FLAGS).map(([flag, title]) =>
      [flag, button(title, keymap.hint(flag), () => this.toggle(flag), "quiet flag", "", `Flag as ${flag}`)]));
    this.note = h("textarea", {
      rows: 1, maxlength: 9000, placeholder: `Why? (${keymap.hint("note")})`, "aria-label": "Why, in your words",
      oninput: () => this.wrote(), onkeydown: (event) => event.key === "Escape" && this.note.blur(),
    });
    this.note.value = draft.note;
    this.rows = criteria.map((name) => this.row(name));
    this.element = h("section", { class: "remarks", "aria-label": "Remarks" },
      this.rows.length ? h("div", { class: "criteria" }, ...this.rows) : "",
      h("div", { class: "said-more" }, ...Object.values(this.flags), this.note));
    this.refresh();
  }

  /** What is said of what can be said now: a draft, or an answer to be changed, may be older than the criteria. */
  get said() {
    const { flags, criteria } = this.draft;
    const chosen = this.names.filter((name) => name in criteria).map((name) => [name, criteria[name]]);
    return { flags: flags.filter((flag) => flag in FLAGS), criteria: Object.fromEntries(chosen) };
  }

  row(name) {
    const choice = ([value, title]) => {
      const input = h("input", { type: "radio", name: `criterion-${name}`, value, onchange: () => this.choose(name, value) });
      input.checked = this.draft.criteria[name] === value;
      return h("label", {}, input, title);
    };
    return h("fieldset", {}, h("legend", {}, name), ...Object.entries(CHOICES).map(choice));
  }

  choose(name, value) {
    this.draft.criteria[name] = value;
    this.changed();
  }

  toggle(flag) {
    const { flags } = this.draft;
    this.draft.flags = flags.includes(flag) ? flags.filter((f) => f !== flag) : [...flags, flag];
    this.refresh();
    this.changed();
  }

  wrote() {
    this.draft.note = this.note.value;
    this.changed();
  }

  focusNote() {
    this.note.focus();
    this.note.scrollIntoView({ block: "center" });
  }

  focusCriteria() {
    this.rows[0]?.querySelector("input:checked, input")?.focus();
    this.rows[0]?.scrollIntoView({ block: "center" });
  }

  refresh() {
    for (const [flag, element] of Object.entries(this.flags)) {
      element.setAttribute("aria-pressed", this.draft.flags.includes(flag));
    }
  }
}
