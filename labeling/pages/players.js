// The players of clips: of the slate on the page and of those that come next, so that their clips load meanwhile.

import { ClipPlayer } from "./clips.js";
import { keyOfPlace } from "./slate.js";

export class Players {
  constructor() {
    this.players = new Map(); // by slate
    this.current = null;
  }

  /** Have players for these slates, the first of which is on the page: those that load go on, others are closed. */
  provide(slates) {
    const wanted = new Map(slates.filter((slate) => slate?.candidates[0].clip).map((slate) => [slate.slate, slate]));
    for (const [id, player] of this.players) {
      if (wanted.has(id)) continue;
      if (this.current === player) this.current = null; // it ends: a video that was let go of cannot be wound back
      player.close();
      this.players.delete(id);
    }
    for (const [id, { candidates }] of wanted) {
      if (this.players.has(id)) continue;
      const names = candidates.map((_, place) => `Clip ${keyOfPlace(place, candidates.length)}`);
      this.players.set(id, new ClipPlayer(candidates.map((candidate) => candidate.clip), names));
    }
    const player = this.players.get(slates[0]?.slate) ?? null;
    if (this.current !== player) this.current?.leave();
    this.current = player;
    return player;
  }
}
