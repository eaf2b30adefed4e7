// The labeling page. All text that comes from a model is put in as text, never as markup.
// One answer has one client_key from the moment its slate is shown, so a retry or a double click cannot count twice.

import { ClipPlayer } from "./clips.js";
import { button, h, once, said } from "./elements.js";
import { PENDING, Server } from "./server.js";

const LETTERS = "ABCDEFGHI";
const SETTLE_MS = 350; // nobody reads that fast: a click so soon after a new slate was meant for the last one
const POLL_MS = 3000;
const HEARTBEAT_MS = 60_000; // whoever has the page before them keeps their slates, however long they read

let stop = () => {};

/** Run the page inside `root`; a page that ran before lets go of the keyboard. */
export function start(root) {
  stop();
  const life = new AbortController();
  stop = () => life.abort();
  const page = new LabelPage(root, life.signal);
  document.addEventListener("keydown", (event) => page.pressed(event), { signal: life.signal });
  const heartbeat = setInterval(() => page.beat(), HEARTBEAT_MS);
  life.signal.addEventListener("abort", () => clearInterval(heartbeat));
  page.open();
}

class LabelPage {
  constructor(root, signal) {
    this.signal = signal;
    this.server = new Server((line, kind) => this.say(line, kind), signal);
    this.mode = localStorage.getItem("prefloop.mode");
    this.name = localStorage.getItem("prefloop.name") || "local";
    this.lease = null;
    this.players = new Map(); // of the slate on the page and of the next one, by slate
    this.player = null;
    this.places = []; // the ranking so far, best first: groups of tied places
    this.tieNext = false;
    this.busy = false;
    this.tabs = { pairs: this.tab("pairs", "Pairs"), rankings: this.tab("rankings", "Rankings") };
    this.count = h("span", { class: "count" });
    this.me = null; // who signed in, in a project with accounts
    this.nameBox = h("input", {
      "aria-label": "Your name", value: this.name, maxlength: 64, spellcheck: false, size: 10,
      onchange: () => this.rename(), onkeydown: (e) => e.key === "Enter" && this.nameBox.blur(),
    });
    this.body = h("div", { class: "body" });
    this.status = h("p", { class: "status", role: "status", "aria-live": "polite" });
    this.bar = h("div", { class: "bar" });
    this.who = h("label", { class: "who" }, "Labeling as ", this.nameBox);
    const tabs = h("div", { class: "tabs", role: "tablist" }, this.tabs.pairs, this.tabs.rankings);
    signal.addEventListener("abort", () => this.providePlayers([]));
    const foot = h("footer", {}, this.status, this.bar);
    root.replaceChildren(h("header", {}, tabs, h("div", { class: "you" }, this.count, this.who)), this.body, foot);
  }

  // What is asked of the server

  async open() {
    await this.introduce();
    const kept = sessionStorage.getItem(PENDING);
    if (kept) {
      this.busy = true;
      await this.deliver(JSON.parse(kept)); // an answer that a reload interrupted
    }
    if (!this.mode) {
      const { waiting } = await this.server.send("lease", { annotator: this.name, mode: "pairs" });
      this.mode = waiting.pairs || !waiting.rankings ? "pairs" : "rankings";
    }
    await this.ask();
  }

  /** Who labels: the account that signed in, or in a project without accounts whoever the box names. */
  async introduce() {
    const { name } = await this.server.read("me");
    if (!name) return;
    this.me = this.name = name;
    const leave = async () => {
      await this.server.send("logout", {});
      location.assign("/login");
    };
    this.who.replaceWith(h("span", { class: "who" }, `Labeling as ${name} `, button("Sign out", "", leave, "quiet")));
  }

  async ask() {
    this.busy = true;
    try {
      this.show(await this.server.send("lease", { annotator: this.name, mode: this.mode }));
    } catch (refused) {
      this.say(refused.message, "bad");
      this.busy = false;
    }
  }

  async poll() {
    if (!this.signal.aborted && !this.lease && !this.busy) await this.ask();
  }

  beat() {
    if (this.lease && !document.hidden) this.server.tell("heartbeat", { annotator: this.name, mode: this.mode });
  }

  async answer(outcome, ranks = null) {
    if (!this.ready(ranks)) return;
    const seconds = Math.min((performance.now() - this.shownAt) / 1000, 86400);
    const body = {
      annotator: this.name, mode: this.mode, client_key: this.clientKey, slate: this.lease.slate, outcome, ranks,
      seconds: Math.round(seconds * 10) / 10,
    };
    this.busy = true;
    sessionStorage.setItem(PENDING, JSON.stringify(body));
    const reply = await this.deliver(body);
    if (!reply) return this.ask();
    this.say("");
    this.show(reply);
  }

  async deliver(body) {
    try {
      return await this.server.send("submit", body);
    } catch (refused) {
      this.say(refused.message, "bad");
      return null;
    } finally {
      sessionStorage.removeItem(PENDING);
    }
  }

  async undo() {
    if (this.busy) return;
    this.busy = true;
    try {
      this.show(await this.server.send("undo", { annotator: this.name, mode: this.mode, client_key: crypto.randomUUID() }));
      this.say("Taken back: answer it again");
    } catch (refused) {
      this.busy = false;
      this.say(refused.message);
    }
  }

  // What is shown

  show(reply) {
    this.busy = false;
    this.count.textContent = `${reply.yours} label${reply.yours === 1 ? "" : "s"}`;
    this.waiting = reply.waiting;
    for (const [mode, tab] of Object.entries(this.tabs)) {
      tab.setAttribute("aria-selected", mode === this.mode);
      tab.lastChild.textContent = this.waiting[mode] || "";
    }
    this.lease = reply.lease;
    this.providePlayers([reply.lease, reply.next]);
    this.clientKey = crypto.randomUUID();
    this.shownAt = performance.now();
    this.places = [];
    this.tieNext = false;
    this.body.replaceChildren(...(this.lease ? this.slate() : [this.nothing()]));
    const asked = this.body.querySelector(".prompt")?.offsetHeight;
    if (asked) this.body.style.setProperty("--asked", `${asked}px`); // clips take what the question leaves of the window
    this.player?.enter();
    this.refresh();
    if (this.lease) scrollTo({ top: 0 });
    else setTimeout(() => this.poll(), POLL_MS);
  }

  say(line, kind = "") {
    this.status.textContent = line;
    this.status.className = `status ${kind}`;
  }

  /** Have players for the slates that show clips: those that were loading go on, others are closed. */
  providePlayers(slates) {
    const wanted = new Map(slates.filter((slate) => slate?.candidates[0].clip).map((slate) => [slate.slate, slate]));
    for (const [id, player] of this.players) {
      if (wanted.has(id)) continue;
      player.close();
      this.players.delete(id);
    }
    for (const [id, { candidates }] of wanted) {
      if (this.players.has(id)) continue;
      const names = candidates.map((_, place) => `Clip ${keyOf(place, candidates.length)}`);
      this.players.set(id, new ClipPlayer(candidates.map((candidate) => candidate.clip), names));
    }
    const player = this.players.get(slates[0]?.slate) ?? null;
    if (this.player !== player) this.player?.leave();
    this.player = player;
  }

  slate() {
    const { prompt, candidates } = this.lease;
    const k = candidates.length;
    this.cards = candidates.map((candidate, place) => this.card(candidate, place));
    const grid = this.player ? `clips ${this.mode}` : [2, 4].includes(k) ? "two" : "";
    const columns = k <= 6 ? k : Math.ceil(k / 2);
    const cards = h("div", { class: `cards new ${grid}`, style: `--columns: ${columns}` }, ...this.cards);
    return [prompt.length ? conversation(prompt) : "", cards, this.player ? this.player.controls : ""];
  }

  /** Bring to the page what the person has done to the slate: the cards stay, or their videos would start again. */
  refresh() {
    if (!this.lease) {
      this.bar.replaceChildren(this.undoBar());
      return;
    }
    this.cards.forEach((card, place) => {
      card.classList.toggle("placed", this.rankOf(place) > 0);
      card.querySelector(".title").textContent = this.titleOf(place);
    });
    this.bar.replaceChildren(...(this.mode === "pairs" ? this.pairBar() : this.rankingBar()));
  }

  nothing() {
    const other = this.mode === "pairs" ? "rankings" : "pairs";
    const waiting = this.waiting[other];
    return h("div", { class: "nothing" },
      h("h2", {}, "Nothing to label right now"),
      h("p", {}, "New comparisons appear here by themselves as soon as a run asks for them."),
      waiting ? button(`${waiting} ${other} waiting`, "", () => this.turnTo(other), "primary") : "");
  }

  card(candidate, place) {
    const choose = (event) => {
      if (!getSelection().isCollapsed) return; // the person marks text
      if (this.mode === "pairs") once(event, () => this.choose(place));
      else this.place(place);
    };
    const cut = candidate.finished === false;
    const head = h("div", { class: "cardhead" },
      h("kbd", { class: "big" }, keyOf(place, this.lease.candidates.length)),
      h("span", { class: "title" }),
      cut ? h("span", { class: "cut", title: "It reached the length limit" }, "cut off") : "");
    const body = () => h("div", { class: "said" }, said(candidate.text, candidate.html), cut ? h("span", { class: "ellipsis" }, " …") : "");
    return h("article", { class: "card", onclick: choose }, head, this.player ? this.player.screens[place].element : body());
  }

  titleOf(place) {
    const rank = this.rankOf(place);
    const name = this.player ? `Clip ${keyOf(place, this.lease.candidates.length)}` : `Answer ${place + 1}`;
    if (this.mode === "pairs" || (this.player && !rank)) return name;
    if (!rank) return "not ranked";
    return this.player ? `${name} · ${ordinal(rank)}` : ordinal(rank);
  }

  pairBar() {
    return [
      this.undoBar(),
      h("div", { class: "main" },
        button("1 is better", "← 1", (e) => once(e, () => this.choose(0)), "primary"),
        button(this.player ? "Equal" : "Tie", "0", (e) => once(e, () => this.answer("ranked", [1, 1]))),
        button("2 is better", "2 →", (e) => once(e, () => this.choose(1)), "primary")),
      this.otherBar("Both bad", "B"),
    ];
  }

  rankingBar() {
    const strip = this.places.flatMap((group, g) => [
      g ? button("›", "", () => this.tieGroups(g), "join", "Tie with the one before") : "",
      ...group.flatMap((place, n) => [
        n ? button("=", "", () => this.splitGroup(g, n), "join tied", "Not a tie") : "",
        button(LETTERS[place], "", () => this.place(place), "chip", "Take out of the ranking"),
      ]),
    ]);
    if (!this.complete()) {
      const next = this.tieNext ? "=" : this.places.length ? "›" : "";
      strip.push(h("span", { class: "next" }, `${next} ${this.places.length ? "next best" : `press the letter of the best ${this.noun()}`} …`));
    }
    return [
      h("div", { class: "strip" }, h("span", { class: "best" }, "best"), ...strip),
      this.undoBar(),
      h("div", { class: "main" },
        button("Tie with next", "=", () => this.tie(), this.tieNext ? "on" : ""),
        button("Back", "⌫", () => this.back()),
        button("Submit", "⏎", (e) => once(e, () => this.submitRanking()), this.complete() ? "primary" : "")),
      this.otherBar("All bad", "X"),
    ];
  }

  otherBar(bad, key) {
    return h("div", { class: "other" },
      this.player ? "" : button(bad, key, (e) => once(e, () => this.answer("both_bad")), "quiet"),
      button(this.player ? "Can’t tell" : "Skip", "S", (e) => once(e, () => this.answer("skip")), "quiet"));
  }

  undoBar() {
    return h("div", { class: "other" }, button("Undo", "U", () => this.undo(), "quiet"));
  }

  tab(mode, title) {
    const tab = button(title, "", () => this.turnTo(mode));
    tab.setAttribute("role", "tab");
    tab.append(h("span", { class: "waiting" }));
    return tab;
  }

  // What the person does

  /** Whether an answer counts now; one that compares needs all clips, others do not. */
  ready(ranks) {
    if (!this.lease || this.busy || performance.now() - this.shownAt <= SETTLE_MS) return false;
    if (!ranks || !this.player || this.player.complete()) return true;
    this.say("Not all clips are there: wait, try again, or press S for “Can’t tell”", "bad");
    return false;
  }

  noun() {
    return this.player ? "clip" : "answer";
  }

  choose(place) {
    const ranks = place === 0 ? [1, 2] : [2, 1];
    if (!this.ready(ranks)) return;
    this.cards[place].classList.add("picked");
    this.answer("ranked", ranks);
  }

  turnTo(mode) {
    if (this.busy || mode === this.mode) return;
    this.mode = mode;
    localStorage.setItem("prefloop.mode", mode);
    this.lease = null;
    this.ask();
  }

  rename() {
    const name = this.nameBox.value.trim();
    if (this.busy || !/^[\p{L}\p{Nd}_.@-]{1,64}$/u.test(name)) {
      this.nameBox.value = this.name;
      this.say("A name has 1 to 64 letters, digits or . _ @ -", "bad");
      return;
    }
    this.name = name;
    localStorage.setItem("prefloop.name", name);
    this.lease = null;
    this.ask();
  }

  rankOf(place) {
    return this.places.findIndex((group) => group.includes(place)) + 1;
  }

  complete() {
    return this.places.flat().length === this.lease.candidates.length;
  }

  /** Put a place at the end of the ranking, or take it out if it is in. */
  place(place) {
    if (this.busy) return;
    if (this.rankOf(place)) {
      this.places = this.places.map((group) => group.filter((p) => p !== place)).filter((group) => group.length);
    } else if (this.tieNext && this.places.length) {
      this.places.at(-1).push(place);
    } else {
      this.places.push([place]);
    }
    this.tieNext = false;
    this.say("");
    this.refresh();
  }

  tie() {
    this.tieNext = this.places.length > 0 && !this.complete() && !this.tieNext;
    this.refresh();
  }

  tieGroups(g) {
    this.places.splice(g - 1, 2, [...this.places[g - 1], ...this.places[g]]);
    this.refresh();
  }

  splitGroup(g, n) {
    this.places.splice(g, 1, this.places[g].slice(0, n), this.places[g].slice(n));
    this.refresh();
  }

  back() {
    if (this.tieNext) this.tieNext = false;
    else if (this.places.length) {
      this.places.at(-1).pop();
      if (!this.places.at(-1).length) this.places.pop();
    }
    this.refresh();
  }

  submitRanking() {
    if (!this.ready(this.places)) return;
    const missing = this.lease.candidates.flatMap((_, place) => (this.rankOf(place) ? [] : LETTERS[place]));
    if (missing.length) {
      this.say(this.places.length ? `Still to be ranked: ${missing.join(", ")}` : `Rank the ${this.noun()}s first: press their letters, best to worst`, "bad");
      return;
    }
    this.answer("ranked", this.lease.candidates.map((_, place) => this.rankOf(place)));
  }

  pressed(event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key)) return; // they move it
    if (event.target.closest("input:not([type=range]), textarea, select, [contenteditable]")) return;
    if (["Enter", " "].includes(event.key) && event.target.closest("button, a")) return; // it presses that button
    const action = this.actions()[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  actions() {
    const undo = { u: () => this.undo() };
    if (!this.lease) return undo;
    const either = { ...undo, s: () => this.answer("skip"), ...this.player?.actions() };
    const bad = (key) => (this.player ? {} : { [key]: () => this.answer("both_bad") });
    if (this.mode === "pairs") {
      const left = () => this.choose(0);
      const right = () => this.choose(1);
      const tie = () => this.answer("ranked", [1, 1]);
      return { ...either, 1: left, ArrowLeft: left, 2: right, ArrowRight: right, 0: tie, "=": tie, ...bad("b") };
    }
    const letters = this.lease.candidates.map((_, place) => [LETTERS[place].toLowerCase(), () => this.place(place)]);
    return {
      ...either, ...Object.fromEntries(letters), ...bad("x"),
      "=": () => this.tie(), Backspace: () => this.back(), Enter: () => this.submitRanking(),
    };
  }
}

function conversation(messages) {
  const turns = messages.map((message) => h("div", { class: `turn ${message.role}` },
    h("span", { class: "role" }, messages.length === 1 ? "prompt" : message.role),
    said(message.content, message.html)));
  return h("section", { class: "prompt" }, ...turns);
}

/** The key of a place, among `k`. */
function keyOf(place, k) {
  return k === 2 ? String(place + 1) : LETTERS[place];
}

function ordinal(rank) {
  return `${rank}${["th", "st", "nd", "rd"][rank] ?? "th"}`;
}
