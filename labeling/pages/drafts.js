// Answers that are being made: what a person has done to a slate so far, kept by person and slate.

import { everything, forget, keep } from "./kept.js";
import { groupsOf } from "./ranking.js";

const OLD_MS = 14 * 24 * 3600_000;

export class Drafts {
  /** Bring back this person's drafts. */
  async open(annotator) {
    this.annotator = annotator;
    this.drafts = new Map();
    for (const draft of await everything("drafts")) {
      if (Date.now() - draft.at > OLD_MS) forget("drafts", draft.key);
      else if (draft.annotator === annotator) this.drafts.set(draft.slate, draft);
    }
  }

  /** The draft of a slate; one that holds nothing if there is none yet. */
  of(slate) {
    const key = `${this.annotator}/${slate}`;
    return this.drafts.get(slate) ?? { key, annotator: this.annotator, slate, groups: [], tieNext: false, flags: [], criteria: {}, note: "" };
  }

  keep(draft) {
    draft.at = Date.now();
    this.drafts.set(draft.slate, draft);
    keep("drafts", draft.key, draft);
  }

  forget(slate) {
    if (!this.drafts.delete(slate)) return;
    forget("drafts", `${this.annotator}/${slate}`);
  }
}

/** An answer that was given, as the draft of its change. */
export function draftOf({ answer }) {
  const { outcome, flags, criteria, reason } = answer;
  return { groups: outcome === "ranked" ? groupsOf(answer) : [], flags, criteria, note: reason };
}
