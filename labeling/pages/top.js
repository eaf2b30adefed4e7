// What stands above the comparison: the kinds of it, how far this person has come, the menu, and who labels.

import { button, h } from "./elements.js";

const MOST_COUNTED = 100; // the server counts no further
const NAME = /^[\p{L}\p{Nd}_.@-]{1,64}$/u;

export class Top {
  /** `told.turnTo(mode)`: a tab was chosen; `told.renamed(name)`: another name is to label, "" if it is none. */
  constructor(name, told) {
    this.told = told;
    this.tabs = { pairs: this.tab("pairs", "Pairs"), rankings: this.tab("rankings", "Rankings") };
    this.count = h("span", { class: "count" });
    this.unsent = h("span", { class: "unsent", role: "status" });
    this.progress = h("progress", { "aria-label": "Your answers, of those that you could give" });
    this.nameBox = h("input", {
      "aria-label": "Your name", value: name, maxlength: 64, spellcheck: false, size: 10,
      onchange: () => this.named(), onkeydown: (e) => e.key === "Enter" && this.nameBox.blur(),
    });
    this.who = h("label", { class: "who" }, "Labeling as ", this.nameBox);
    this.menu = h("div", { class: "menu" });
    const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "What to compare" }, this.tabs.pairs, this.tabs.rankings);
    const you = h("div", { class: "you" }, this.unsent, this.progress, this.count, this.menu, this.who);
    this.element = h("header", {}, tabs, you);
  }

  tab(mode, title) {
    const tab = button(title, "", () => this.told.turnTo(mode));
    tab.setAttribute("role", "tab");
    tab.append(h("span", { class: "waiting" }));
    return tab;
  }

  named() {
    const name = this.nameBox.value.trim();
    this.told.renamed(NAME.test(name) ? name : "");
  }

  /** The box says what it said before. */
  showName(name) {
    this.nameBox.value = name;
  }

  /** Somebody signed in: their name cannot be another. */
  signedIn(name, role, leave) {
    const people = role === "owner" ? h("a", { href: "/people" }, "People") : "";
    this.who.replaceWith(h("span", { class: "who" }, people, " Labeling as ", h("a", { href: "/password", title: "Change your password" }, name), " ", button("Sign out", "", leave, "quiet")));
  }

  /** `standing` is the server's; `unsent`: answers that it does not know of yet, and `lost` that it cannot be reached. */
  refreshCount({ yours, waiting, qualifying }, mode, unsent, lost) {
    const going = qualifying && !qualifying.over;
    const given = yours + unsent.filter(({ route }) => route === "submit").length;
    this.count.textContent = going ? `Qualifying round: ${qualifying.done} of ${qualifying.of}` : `${given} label${given === 1 ? "" : "s"}`;
    this.progress.max = (going ? qualifying.of : given + (waiting[mode] ?? 0)) || 1;
    this.progress.value = going ? qualifying.done : given;
    this.unsent.textContent = lost && unsent.length ? `${unsent.length} not sent` : "";
    for (const [each, tab] of Object.entries(this.tabs)) {
      tab.setAttribute("aria-selected", each === mode);
      tab.lastChild.textContent = waiting[each] >= MOST_COUNTED ? `${MOST_COUNTED}+` : waiting[each] || "";
    }
  }

  /** The menu with its keys as they are now. */
  refreshMenu(keymap, guidelines, acts) {
    const item = (title, id) => button(title, keymap.hint(id), () => acts()[id](), "quiet");
    this.menu.replaceChildren(guidelines ? item("Guidelines", "guidelines") : "", item("Last answers", "recent"), item("Keys", "settings"));
  }
}
