// How long a person was at work: an open page alone says nothing. Time counts while the page can be seen and the person
// does something, and for a while after each thing that they did.

const IDLE_MS = 30_000; // who reads a long answer touches nothing for some time; who touches nothing for longer is away
const ACTS = ["keydown", "pointerdown", "pointermove", "wheel", "scroll", "touchstart", "touchmove"];

export class Attention {
  /** Watch the page until `signal` ends it. */
  constructor(signal) {
    this.total = 0; // milliseconds, up to `last`
    this.last = performance.now(); // when the person last did something
    this.visible = document.visibilityState === "visible";
    this.played = new WeakMap(); // how far each video was seen
    const heed = { signal, capture: true, passive: true }; // scrolling and videos tell only those who capture
    for (const act of ACTS) document.addEventListener(act, () => this.noted(), heed);
    document.addEventListener("timeupdate", ({ target }) => this.watched(target), heed);
    document.addEventListener("visibilitychange", () => this.turned(), heed);
  }

  /** The person did something now. Returns for how many milliseconds they were at work so far. */
  noted() {
    const now = performance.now();
    if (this.visible) this.total += Math.min(now - this.last, IDLE_MS);
    this.last = now;
    return this.total;
  }

  /** A clip that plays is watched until its end; that it starts over and over by itself shows nobody. */
  watched(video) {
    if (video.currentTime <= (this.played.get(video) ?? 0)) return;
    this.played.set(video, video.currentTime);
    this.noted();
  }

  /** The page came into sight, or went out of it. */
  turned() {
    this.noted();
    this.visible = document.visibilityState === "visible";
  }
}
