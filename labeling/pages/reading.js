// Reading long answers side by side: they scroll together, and what differs is marked on demand. Marks are highlights
// over the text that is there (CSS Custom Highlight API): no element is changed, so a text cannot become markup.

import { differences } from "./differences.js";

const MARK = "prefloop-difference";
const SYNC = "prefloop.sync";

export class Reading {
  /** `texts`: the elements that hold the answers, each of which may scroll. */
  constructor(texts, names) {
    this.texts = texts;
    this.together = localStorage.getItem(SYNC) !== "off";
    this.marked = false;
    this.expected = new Map(); // where an element was scrolled to by us: that is no wish of the person's
    texts.forEach((text, n) => {
      text.addEventListener("scroll", () => this.scrolled(text), { passive: true });
      if (text.scrollHeight <= text.clientHeight + 1) return;
      text.tabIndex = 0; // who has no mouse scrolls it by keys
      text.setAttribute("role", "region");
      text.setAttribute("aria-label", `${names[n]}, scrolls`);
    });
  }

  scrolled(moved) {
    const expected = this.expected.get(moved);
    this.expected.delete(moved);
    // The parts of a very long text find their heights as they come into sight, which scrolls it too: that is no wish either.
    if (moved.querySelector(".part") && !moved.matches(":hover, :focus")) return;
    if (!this.together || (expected !== undefined && Math.abs(expected - moved.scrollTop) < 2)) return;
    const share = moved.scrollTop / Math.max(1, moved.scrollHeight - moved.clientHeight);
    for (const text of this.texts) {
      const wanted = Math.round(share * (text.scrollHeight - text.clientHeight));
      if (text === moved || Math.abs(wanted - text.scrollTop) < 1) continue;
      this.expected.set(text, wanted);
      text.scrollTop = wanted;
    }
  }

  setTogether(together) {
    this.together = together;
    localStorage.setItem(SYNC, together ? "on" : "off");
  }

  /** Mark what differs between two answers, or take the marks away. Returns how many places are marked. */
  mark(marked) {
    this.marked = marked;
    CSS.highlights.delete(MARK);
    if (!marked) return 0;
    const found = differences(...this.texts.map((text) => text.textContent));
    const ranges = this.texts.flatMap((text, n) => found[n].map((span) => rangeOf(text, span)));
    CSS.highlights.set(MARK, new Highlight(...ranges));
    return ranges.length;
  }

  leave() {
    CSS.highlights?.delete(MARK);
  }
}

/** The range of the characters from `start` to `end` of an element's text, across its text nodes. */
function rangeOf(element, { start, end }) {
  const range = document.createRange();
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let passed = 0;
  for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
    const after = passed + node.length;
    if (start >= passed && start < after) range.setStart(node, start - passed);
    if (end > passed && end <= after) {
      range.setEnd(node, end - passed);
      break;
    }
    passed = after;
  }
  return range;
}
