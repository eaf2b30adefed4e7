// The player: the clips of a slate, side by side, moved by one clock. Where a clip is shorter than the longest, it holds
// its last frame. A player that is not on the page yet loads already, so that its first frames are there at once.

import { button, h } from "./elements.js";
import { Screen } from "./screen.js";

const SPEEDS = [[0.25, "¼×"], [0.5, "½×"], [1, "1×"], [2, "2×"]];
const settings = { rate: 1, loop: true }; // what a person has chosen stays from slate to slate

export class ClipPlayer {
  /** Load the clips at `urls`; `names[place]` is what a person calls them. */
  constructor(urls, names) {
    this.shown = false;
    this.wanted = false; // the person wants it to play
    this.held = false; // … but holds the slider
    this.at = 0; // where the clock stands, or stood when it started at `since`
    this.since = null;
    this.turn = 0; // counts commands: what an older one still waits for is void
    this.screens = urls.map((url, place) => new Screen(url, names[place], () => this.shown && this.begin()));
  }

  /** Whether every clip is there to be seen. */
  complete() {
    return this.screens.every((screen) => screen.state === "ready");
  }

  /** It is on the page now: play, unless the person would rather have less motion. */
  enter() {
    this.shown = true;
    this.wanted = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.begin();
  }

  /** It is off the page; it may come back. */
  leave() {
    this.shown = false;
    this.wanted = false;
    this.go(0);
  }

  close() {
    this.turn += 1;
    for (const screen of this.screens) screen.close();
  }

  begin() {
    if (this.screens.every((screen) => screen.state !== "loading")) this.go(this.time());
    this.refresh();
  }

  get ready() {
    return this.screens.filter((screen) => screen.state === "ready");
  }

  get length() {
    return Math.max(0, ...this.ready.map((screen) => screen.length));
  }

  get frame() {
    return Math.min(1, ...this.ready.map((screen) => screen.frame));
  }

  // The clock

  time() {
    const gone = this.since === null ? 0 : ((performance.now() - this.since) / 1000) * settings.rate;
    return Math.min(this.at + gone, this.length);
  }

  /** Set all clips to one time, and from there let them play together if that is wanted. */
  async go(time) {
    this.turn += 1;
    const turn = this.turn;
    this.at = time;
    this.since = null;
    this.refresh();
    const screens = this.ready;
    await Promise.all(screens.map((screen) => screen.seek(time)));
    if (turn !== this.turn || !this.wanted || this.held) return;
    const moving = screens.filter((screen) => time < screen.length - screen.frame / 2);
    if (!time && !moving.length) return; // there is nothing to play
    await Promise.all(moving.map((screen) => screen.play(settings.rate)));
    if (turn !== this.turn) return;
    this.at = Math.min(...moving.map((screen) => screen.video.currentTime), this.length);
    this.since = performance.now();
    this.tick(turn);
  }

  tick(turn) {
    if (turn !== this.turn) return;
    const time = this.time();
    if (time >= this.length) {
      this.wanted &&= settings.loop;
      this.go(this.wanted ? 0 : this.length);
      return;
    }
    for (const screen of this.ready) screen.follow(time, settings.rate);
    this.refreshTime();
    requestAnimationFrame(() => this.tick(turn));
  }

  // What the person does

  toggle() {
    this.wanted = !this.wanted;
    this.go(this.wanted && this.time() >= this.length - this.frame ? 0 : this.time());
  }

  /** Go to the middle of the frame before or after, where no rounding leads to its neighbour. */
  step(frames) {
    this.wanted = false;
    const last = Math.round(this.length / this.frame) - 1;
    const number = Math.min(Math.floor(this.time() / this.frame + 1e-6), last) + frames;
    this.go((Math.max(0, Math.min(number, last)) + 0.5) * this.frame);
  }

  scrub(held) {
    this.held = held;
    this.go(Number(this.slider.value));
  }

  setRate(rate) {
    this.at = this.time();
    if (this.since !== null) this.since = performance.now();
    settings.rate = rate;
    this.refresh();
  }

  faster(steps) {
    const place = SPEEDS.findIndex(([rate]) => rate === settings.rate) + steps;
    if (SPEEDS[place]) this.setRate(SPEEDS[place][0]);
  }

  setLoop(loop) {
    settings.loop = loop;
    this.refresh();
  }

  /** What each action does, by its name (see keys.js). */
  get acts() {
    return {
      play: () => this.toggle(), stepBack: () => this.step(-1), stepOn: () => this.step(1),
      slower: () => this.faster(-1), faster: () => this.faster(1), loop: () => this.setLoop(!settings.loop),
    };
  }

  // What is shown

  /** The controls, with the keys that the person has for them; whoever puts the player on the page makes them. */
  makeControls(keymap) {
    const hint = (id) => keymap.hint(id);
    this.playButton = button("", hint("play"), () => this.toggle(), "play");
    this.slider = h("input", {
      type: "range", min: 0, max: 0, step: "any", value: 0, "aria-label": "Position",
      oninput: () => this.scrub(true), onchange: () => this.scrub(false), onpointerup: () => this.slider.blur(),
    });
    this.clock = h("output", { class: "clock" });
    this.speeds = SPEEDS.map(([rate, title]) => button(title, "", () => this.setRate(rate)));
    this.loopButton = button("Loop", hint("loop"), () => this.setLoop(!settings.loop), "loop");
    const steps = [[-1, "‹", hint("stepBack"), "One frame back"], [1, "›", hint("stepOn"), "One frame on"]];
    return h("div", { class: "player", role: "group", "aria-label": "Player of all clips" },
      this.playButton,
      h("div", { class: "segments" }, ...steps.map(([n, sign, key, hint]) => button(sign, key, () => this.step(n), "", hint))),
      this.slider, this.clock,
      h("div", { class: "segments", role: "group", "aria-label": "Speed" },
        h("kbd", { "aria-hidden": "true" }, hint("slower")), ...this.speeds, h("kbd", { "aria-hidden": "true" }, hint("faster"))),
      this.loopButton);
  }

  refresh() {
    this.playButton.classList.toggle("playing", this.wanted);
    this.playButton.setAttribute("aria-label", this.wanted ? "Pause" : "Play");
    this.speeds.forEach((speed, place) => speed.setAttribute("aria-pressed", SPEEDS[place][0] === settings.rate));
    this.loopButton.setAttribute("aria-pressed", settings.loop);
    this.slider.max = this.length;
    this.refreshTime();
  }

  refreshTime() {
    const time = this.time();
    this.clock.textContent = `${time.toFixed(2)} / ${this.length.toFixed(2)} s`;
    this.slider.setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
    if (this.held) return;
    this.slider.value = time;
    this.slider.style.setProperty("--done", `${(100 * time) / (this.length || 1)}%`);
  }
}
