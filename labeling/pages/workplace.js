// One slate being answered: its cards, the bar under them, remarks and reading aids. What the person has done so far is in
// the draft; the answer goes to the page, which sends it.

import { button, h, once } from "./elements.js";
import { PairBar } from "./pair_bar.js";
import { answerOf, rankOf } from "./ranking.js";
import { RankingBar } from "./ranking_bar.js";
import { Reading } from "./reading.js";
import { Remarks } from "./remarks.js";
import { LETTERS, SlateView } from "./slate.js";

const SETTLE_MS = 350; // nobody reads that fast: a click so soon after a new slate was meant for the last one
const REASONS = ["I cannot tell which is better", "The question is unclear", "I do not know enough about it", "I would rather not say"];

export class Workplace {
  /** `told.answer(answer)` gets what the person says, `told.say(line, kind)` and `told.announce(line)` tell them
   *  something, `told.drafted()` is called when the draft has changed, `told.refresh()` when the bar has; `told.busy()`:
   *  whether the page waits for another slate, so that no answer counts; `told.atWork()`: for how many milliseconds the
   *  person was at work so far. */
  constructor(slate, draft, player, task, keymap, told) {
    Object.assign(this, { slate, draft, player, keymap, told });
    this.k = slate.candidates.length;
    this.shownAt = performance.now();
    this.workedBefore = told.atWork();
    this.given = false;
    this.skipping = false;
    this.leaveOut = false; // the person was asked whether the rest stays unranked
    const clips = player !== null;
    this.pair = this.k === 2;
    const scale = task.strength && !clips;
    this.kind = this.pair ? (scale ? "scale" : "sides") : "ranking";
    const changed = (line) => this.ranked(line);
    this.choice = this.pair
      ? new PairBar(scale, clips, keymap, (ranks, strength) => this.compare(ranks, strength))
      : new RankingBar(draft, this.k, this.noun, keymap, { changed, submit: () => this.submit() });
    this.view = new SlateView(slate, player, keymap, { choose: (place, event) => this.clicked(place, event), drag: (place) => this.choice.drag(place) });
    this.remarks = new Remarks(draft, this.pair ? task.criteria : [], keymap, () => told.drafted());
    this.aids = h("div", { class: "aids" });
    this.elements = [...this.view.elements, this.aids, this.remarks.element];
    this.view.refresh((place) => rankOf(draft.groups, place));
  }

  get noun() {
    return this.player ? "clip" : "answer";
  }

  /** It is on the page now: what needs measures can be done. */
  enter() {
    this.player?.enter();
    const conversation = this.elements[0];
    if (conversation) conversation.scrollTop = conversation.scrollHeight; // what is to be answered stands last
    if (this.player) return;
    this.reading = new Reading(this.view.texts, this.slate.candidates.map((_, place) => this.view.nameOf(place)));
    this.refreshAids();
  }

  /** The pixels that the reading aids and remarks take. */
  get heightBelow() {
    return this.aids.offsetHeight + this.remarks.element.offsetHeight;
  }

  leave() {
    this.reading?.leave();
  }

  // What the person does

  /** Whether an answer counts now; one that compares needs all clips, others do not. */
  ready(compares) {
    if (this.given || this.told.busy() || performance.now() - this.shownAt <= SETTLE_MS) return false;
    if (!compares || !this.player || this.player.complete()) return true;
    this.told.say(`Not all clips are there: wait, try again, or press ${this.keymap.hint("skip")} for “Can’t tell”`, "bad");
    return false;
  }

  give(outcome, more = {}) {
    if (!this.ready(outcome === "ranked")) return;
    this.given = true;
    const reason = [more.why, this.draft.note.trim()].filter(Boolean).join(": ");
    const seconds = Math.round(Math.min((this.told.atWork() - this.workedBefore) / 1000, 86400) * 10) / 10;
    const { why, ...said } = more;
    this.told.answer({ slate: this.slate.slate, outcome, ranks: null, ...this.remarks.said, reason, seconds, ...said });
  }

  clicked(place, event) {
    if (!this.pair) this.choice.place(place);
    else once(event, () => this.compare(place ? [2, 1] : [1, 2], this.kind === "scale" ? 2 / 3 : null));
  }

  compare(ranks, strength) {
    if (!this.ready(true)) return;
    if (ranks[0] !== ranks[1]) this.view.picked(ranks.indexOf(1));
    this.give("ranked", { ranks, strength });
  }

  ranked(line) {
    this.leaveOut = false;
    this.view.refresh((place) => rankOf(this.draft.groups, place));
    this.told.say("");
    this.told.announce(line);
    this.told.drafted();
  }

  /** Send the ranking; one that leaves something out only when that is meant. */
  submit() {
    if (!this.ready(true)) return;
    const { missing } = this.choice;
    if (missing.length === this.k) {
      this.told.say(`Rank the ${this.noun}s first: press their letters, best to worst`, "bad");
    } else if (missing.length && !this.leaveOut) {
      this.leaveOut = true;
      const letters = missing.map((place) => LETTERS[place]).join(", ");
      this.told.say(`Still to be ranked: ${letters}. ${this.keymap.hint("submit")} again leaves them out, as worse than the rest`, "bad");
    } else {
      this.give("ranked", answerOf(this.draft.groups, this.k));
    }
  }

  /** Skip, and say why; of clips, that one cannot tell is the reason. */
  skip(event) {
    if (this.player || this.skipping) this.give("skip");
    else if (event === undefined || event.detail <= 1) this.setSkipping(true);
  }

  setSkipping(skipping) {
    this.skipping = skipping;
    this.told.refresh();
  }

  // What is shown

  /** The middle and the end of the bar. */
  get bar() {
    if (this.skipping) return this.reasons();
    const bad = this.pair ? ["Both bad", "bothBad"] : ["All bad", "allBad"];
    const other = h("div", { class: "other" },
      this.player ? "" : button(bad[0], this.keymap.hint(bad[1]), (event) => once(event, () => this.give("both_bad")), "quiet"),
      button(this.player ? "Can’t tell" : "Skip", this.keymap.hint("skip"), (event) => this.skip(event), "quiet"));
    const { strip = "", element } = this.choice;
    return this.kind === "scale" ? [element, h("div", {}), other] : [strip, element, other];
  }

  reasons() {
    const skip = (why, event) => once(event, () => this.give("skip", { why }));
    const choices = REASONS.map((why, n) => button(why, String(n + 1), (event) => skip(why, event)));
    return [
      h("div", { class: "strip why" }, h("span", { class: "best" }, "Why skip?"), ...choices),
      h("div", { class: "main" }, button("Skip without a reason", this.keymap.hint("skip"), (event) => skip("", event), "primary")),
      h("div", { class: "other" }, button("Do not skip", "Esc", () => this.setSkipping(false), "quiet")),
    ];
  }

  refreshAids() {
    const { reading, keymap } = this;
    const toggle = (id, title, on) => {
      const made = button(title, keymap.hint(id), () => this.acts()[id](), "quiet");
      made.setAttribute("aria-pressed", on);
      return made;
    };
    this.aids.replaceChildren(
      toggle("together", "Scroll together", reading.together),
      this.pair ? toggle("differences", "Mark differences", reading.marked) : "");
  }

  /** What each action does now, by its name (see keys.js). */
  acts() {
    const { remarks, reading } = this;
    const aids = reading && {
      together: () => reading.setTogether(!reading.together),
      ...(this.pair && { differences: () => this.told.announce(`${reading.mark(!reading.marked)} places marked`) }),
    };
    const refreshed = Object.entries(aids ?? {}).map(([id, act]) => [id, () => [act(), this.refreshAids()]]);
    return {
      ...this.choice.acts,
      ...this.player?.acts,
      ...(!this.player && { [this.pair ? "bothBad" : "allBad"]: () => this.give("both_bad") }),
      skip: () => this.skip(),
      unsafe: () => remarks.toggle("unsafe"),
      broken: () => remarks.toggle("broken"),
      note: () => remarks.focusNote(),
      criteria: () => remarks.focusCriteria(),
      ...Object.fromEntries(refreshed),
    };
  }

  /** Answer to a key that is no action's: a letter or a reason. Returns whether it was one. */
  pressed(key) {
    if (this.skipping) {
      const why = REASONS[Number(key) - 1];
      if (why) this.give("skip", { why });
      else if (key === "Escape") this.setSkipping(false);
      else if (key === "Enter" || this.keymap.keysOf("skip").includes(key)) this.give("skip");
      return true;
    }
    const place = LETTERS.toLowerCase().indexOf(key);
    if (!this.pair && key.length === 1 && place >= 0 && place < this.k) {
      this.choice.place(place);
      return true;
    }
    return false;
  }
}
