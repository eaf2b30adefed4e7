// One clip on the page: its video once it is there, and until then what it waits for or what went wrong.
// The file is fetched whole: an error reply can be read, a seek never waits, and no connection stays open.

import { button, h } from "./elements.js";

const AT_ONCE = 3; // a browser has six connections to a server: clips being made must leave some for the answers
const USUAL_FRAME = 1 / 30;
const NUDGE_SECONDS = 0.2; // a video that is off the clock by a frame is back after about this time
const JUMP_SECONDS = 0.4; // one that is off by more is set to the right place

const waiting = [];
let fetching = 0;

/** Run `load` as soon as fewer than AT_ONCE others run. */
function whenFree(load) {
  waiting.push(load);
  fill();
}

function fill() {
  while (fetching < AT_ONCE && waiting.length) {
    fetching += 1;
    waiting.shift()().finally(() => {
      fetching -= 1;
      fill();
    });
  }
}

export class Screen {
  /** Start to load the clip at `url`; `changed()` is called whenever `state` has become "ready" or "failed". */
  constructor(url, name, changed) {
    this.url = url;
    this.changed = changed;
    this.frame = USUAL_FRAME;
    this.life = new AbortController();
    this.video = h("video", { playsinline: "", preload: "auto", "aria-label": name });
    this.video.muted = true; // an element made by a script does not heed the attribute
    this.note = h("div", { class: "note" });
    this.element = h("div", { class: "screen" }, this.video, this.note);
    this.load();
  }

  load() {
    this.turn("loading", "loading …");
    whenFree(async () => {
      try {
        await this.fetch();
        this.turn("ready");
      } catch (error) {
        if (this.life.signal.aborted) return;
        const again = button("Try again", "", (event) => {
          event.stopPropagation(); // the card below would take it as its choice
          this.load();
        });
        this.turn("failed", h("p", { role: "alert" }, error.message), again);
      }
      this.changed();
    });
  }

  turn(state, ...note) {
    this.state = state;
    this.element.dataset.state = state;
    this.note.replaceChildren(...note);
  }

  async fetch() {
    const signal = this.life.signal;
    signal.throwIfAborted();
    const reply = await fetch(this.url, { signal }).catch(() => Promise.reject(new Error("Cannot reach Prefloop")));
    if (!reply.ok) {
      const { error } = await reply.json().catch(() => ({ error: `the server answered ${reply.status}` }));
      throw new Error(error);
    }
    const bytes = await reply.arrayBuffer();
    this.frame = frameSeconds(bytes);
    URL.revokeObjectURL(this.video.src);
    await new Promise((resolve, reject) => {
      this.video.addEventListener("canplaythrough", resolve, { signal });
      this.video.addEventListener("error", () => reject(new Error("This browser cannot play the clip")), { signal });
      signal.addEventListener("abort", reject);
      this.video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
    });
  }

  /** Where the clip ends; its last frame begins before. */
  get length() {
    return this.video.duration;
  }

  /** Stop, and show what belongs at `time`: the last frame if that is after the end. Resolves when it is shown. */
  async seek(time) {
    this.video.pause();
    const target = Math.max(0, Math.min(time, this.length - this.frame / 2));
    if (this.video.currentTime === target && !this.video.seeking) return;
    const sought = new Promise((resolve) => this.video.addEventListener("seeked", resolve, { once: true }));
    this.video.currentTime = target;
    await sought;
  }

  /** Play on; resolves when it moves, or will not. */
  async play(rate) {
    this.video.playbackRate = rate;
    await this.video.play().catch(() => {});
  }

  /** Keep up with a clock that shows `time` and runs at `rate`: a little faster when late, slower when early. */
  follow(time, rate) {
    const { video, frame } = this;
    if (video.paused || video.seeking) return;
    const late = time - video.currentTime;
    if (Math.abs(late) > JUMP_SECONDS) {
      video.currentTime = time;
      return;
    }
    const pull = Math.abs(late) < frame / 4 ? 0 : Math.max(-0.5, Math.min(0.5, late / NUDGE_SECONDS));
    const wanted = rate * (1 + pull);
    if (Math.abs(wanted - video.playbackRate) > 0.02 * rate || !pull) video.playbackRate = wanted;
  }

  /** Let go of the video and of what is still on its way. */
  close() {
    this.life.abort();
    URL.revokeObjectURL(this.video.src);
    this.video.removeAttribute("src");
    this.video.load();
  }
}

/** Seconds between two frames, as the file says: `stts` in units of `mdhd` (ISO 14496-12, 8.4.2 and 8.6.1.2). */
function frameSeconds(bytes) {
  const view = new DataView(bytes);
  const text = new TextDecoder("latin1").decode(bytes);
  const number = (box) => {
    const at = text.indexOf(box) + 16; // the fourth number after its name, in either box
    return at > 15 && at + 4 <= view.byteLength ? view.getUint32(at) : NaN;
  };
  const seconds = number("stts") / number("mdhd");
  return seconds > 1 / 250 && seconds < 1 ? seconds : USUAL_FRAME;
}
