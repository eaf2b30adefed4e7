// The labeling page: what is on it, and how one slate follows the other. An answer goes into the outbox, and the next slate
// is shown at once: several are here already, so that work goes on where the connection does not. All text that comes from a model is put in as text, never as markup.

import { Attention } from "./attention.js";
import { inWords, isOpen, showGuidelines, showRecent, showSettings, unseen } from "./dialogs.js";
import { draftOf, Drafts } from "./drafts.js";
import { button, h } from "./elements.js";
import { Keymap, keyOf } from "./keys.js";
import { nothing } from "./nothing.js";
import { Outbox } from "./outbox.js";
import { Players } from "./players.js";
import { Rest } from "./rest.js";
import { Server } from "./server.js";
import { Top } from "./top.js";
import { Workplace } from "./workplace.js";

const POLL_MS = 3000;
const AHEAD = 12; // slates that are here before they are needed, at most: at 5 seconds each, a minute of work
const GROWTH = 3; // so many times what is here is asked for: who comes first waits for two, and many may come at once
const LOADED_AHEAD = 4; // of clips, so many of them load
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
    this.root = root;
    this.signal = signal;
    this.server = new Server((line) => this.trouble(line), signal);
    this.outbox = new Outbox(this.server, {
      holding: () => this.holding,
      changed: () => this.refreshCount(),
      sent: (reply) => this.take(reply),
      refused: (line) => this.refused(line),
    });
    this.drafts = new Drafts();
    this.keymap = new Keymap();
    this.players = new Players();
    this.rest = new Rest();
    this.attention = new Attention(signal);
    this.mode = localStorage.getItem("prefloop.mode");
    // The Quality page leads to /label?queue=disputed: slates on which people contradict each other, to decide.
    this.queue = new URLSearchParams(location.search).get("queue") === "disputed" ? "disputed" : "new";
    this.name = localStorage.getItem("prefloop.name") || "local";
    this.standing = { yours: 0, waiting: {}, qualifying: null };
    this.refusal = ""; // why the server gives nothing
    this.slate = null; // on the page
    this.upcoming = []; // come after it
    this.known = new Map(); // all slates that are here, by id: the server need not send them again
    this.workplace = null;
    this.editing = null; // the earlier answer that is being changed; `slate` and `upcoming` wait meanwhile
    this.busy = false;
    signal.addEventListener("abort", () => this.players.provide([]));
    this.frame(root);
  }

  frame(root) {
    this.top = new Top(this.name, { turnTo: (mode) => this.turnTo(mode), renamed: (name) => this.rename(name) });
    this.body = h("div", { class: "body", tabindex: -1, role: "region", "aria-label": "Comparison" });
    this.status = h("p", { class: "status", role: "status", "aria-live": "polite" });
    this.announced = h("p", { class: "unseen", "aria-live": "polite" });
    this.bar = h("div", { class: "bar" });
    const foot = h("footer", {}, this.status, this.bar);
    const deciding = this.queue === "disputed" && h("p", { class: "banner" }, "People contradict each other on these; what you say decides. ", h("a", { href: "/quality" }, "Back to Quality"));
    root.replaceChildren(this.top.element, deciding || "", this.body, foot, this.announced);
  }

  // What is asked of the server

  async open() {
    await this.introduce();
    this.task = await this.server.read("task");
    await this.drafts.open(this.name);
    await this.outbox.open(this.name); // answers that could not be sent, before anything new
    await this.outbox.empty();
    this.refreshMenu();
    if (this.mode) await this.ask();
    else await this.choose();
    if (unseen(this.task.guidelines)) showGuidelines(this.root, this.task.guidelines);
  }

  /** Who labels: the account that signed in, or in a project without accounts whoever the box names. */
  async introduce() {
    const { name, role } = await this.server.read("me");
    if (!name) return;
    this.name = name;
    const leave = async () => {
      await this.server.send("logout", {});
      location.assign("/login");
    };
    this.top.signedIn(name, role, leave);
  }

  /** Whoever was never here before begins with pairs, if there are any. */
  async choose() {
    this.mode = "pairs";
    await this.ask();
    const { waiting } = this.standing;
    if (!waiting.pairs && waiting.rankings) {
      this.mode = "rankings";
      await this.ask();
    }
  }

  get asking() {
    return { annotator: this.name, mode: this.mode, queue: this.queue };
  }

  /** What is here already, and how much is wanted. */
  get holding() {
    return { ahead: Math.min(AHEAD, GROWTH * this.known.size || 1), have: [...this.known.keys()] };
  }

  /** Ask for what is to be answered now. */
  ask() {
    return this.request("lease", this.asking);
  }

  async request(route, body) {
    this.busy = true;
    try {
      await this.outbox.empty();
      const reply = await this.server.send(route, { ...body, ...this.holding });
      this.busy = false;
      this.editing = null;
      this.take(reply);
      return true;
    } catch (refused) {
      this.busy = false;
      if (route === "lease") this.barred(refused.message);
      else this.say(refused.message, "bad");
      return false;
    }
  }

  /** Nothing is given to this person. The page says why, and asks again by itself. */
  barred(line) {
    Object.assign(this, { refusal: line, slate: null, upcoming: [], editing: null });
    this.show();
  }

  async poll() {
    if (!this.signal.aborted && !this.slate && !this.busy && !this.editing && !this.outbox.size) await this.ask();
  }

  beat() {
    if (this.slate && !document.hidden) this.server.tell("heartbeat", this.asking);
  }

  async undo() {
    if (this.busy) return;
    if (await this.request("undo", { ...this.asking, client_key: crypto.randomUUID() })) this.say("Taken back: answer it again");
  }

  // How one slate follows the other

  /** Send an answer and go on at once. */
  answer(answer) {
    const body = { ...this.asking, client_key: crypto.randomUUID(), ...answer };
    this.drafts.forget(answer.slate);
    this.say(this.rest.worked(performance.now()));
    if (this.editing) {
      this.outbox.add("revise", { ...body, replaces: this.editing.client_key });
      this.stopEditing();
      this.announce("Changed");
      return;
    }
    this.outbox.add("submit", body);
    this.slate = this.upcoming.shift() ?? null;
    if (this.slate) this.show();
    else this.wait();
  }

  /** A reply: how things stand, and what is to be answered now. The person may have gone on already. */
  take(reply) {
    this.standing = reply;
    this.refusal = "";
    this.refreshCount();
    const named = [reply.lease, ...reply.after].filter(Boolean);
    for (const slate of named) if (slate.candidates) this.known.set(slate.slate, slate);
    if (this.outbox.size || this.busy) return; // a later reply knows more
    const here = named.filter(({ slate }) => this.known.has(slate));
    this.known = new Map(here.map(({ slate }) => [slate, this.known.get(slate)]));
    const [now = null, ...later] = this.known.values();
    const known = this.slate !== null && this.slate.slate === now?.slate;
    if (!known) this.slate = now;
    this.upcoming = later;
    if (this.workplace && (known || this.editing)) this.provide();
    else this.show();
  }

  refused(line) {
    this.say(`An answer was not taken: ${line}`, "bad");
    if (!this.outbox.size) this.ask();
  }

  /** The player of what is on the page, while the clips that come after it load. */
  provide() {
    return this.players.provide([this.editing, this.slate, ...this.upcoming.slice(0, LOADED_AHEAD)].filter(Boolean));
  }

  show() {
    const slate = this.editing ?? this.slate;
    const focused = this.root.contains(document.activeElement) && document.activeElement !== this.body;
    this.workplace?.leave();
    const player = this.provide();
    this.workplace = slate && this.workplaceOf(slate, player);
    const banner = this.editing && h("p", { class: "banner" }, `You are changing an answer: ${inWords(this.editing)}. `, button("Leave it as it was", "Esc", () => this.stopEditing()));
    this.body.replaceChildren(banner ?? "", ...(slate ? this.workplace.elements : [nothing(this.standing, this, (mode) => this.turnTo(mode))]));
    const asked = this.body.querySelector(".prompt")?.offsetHeight;
    if (asked) this.body.style.setProperty("--asked", `${asked}px`); // clips take what the question leaves of the window
    this.workplace?.enter();
    this.refreshBar();
    const below = this.workplace ? this.workplace.heightBelow : 0;
    this.body.style.setProperty("--below", `${below}px`); // and long answers what remarks leave
    if (slate) scrollTo({ top: 0 });
    clearTimeout(this.polling);
    if (!slate) this.polling = setTimeout(() => this.poll(), POLL_MS);
    if (focused && !this.root.contains(document.activeElement)) this.body.focus({ preventScroll: true });
    if (slate) this.announce(`New comparison of ${slate.candidates.length}. ${slate.prompt.at(-1)?.content.slice(0, 200) ?? ""}`);
  }

  workplaceOf(slate, player) {
    const draft = this.editing ? { ...this.drafts.of(slate.slate), ...draftOf(slate) } : this.drafts.of(slate.slate);
    return new Workplace(slate, draft, player, this.task, this.keymap, {
      busy: () => this.busy,
      atWork: () => this.attention.noted(),
      answer: (answer) => this.answer(answer),
      say: (line, kind) => this.say(line, kind),
      announce: (line) => this.announce(line),
      drafted: () => this.editing || this.drafts.keep(draft),
      refresh: () => this.refreshBar(),
    });
  }

  /** What comes next is not known yet: the reply will say. */
  wait() {
    this.workplace?.leave();
    this.workplace = null;
    this.provide();
    this.body.replaceChildren(h("div", { class: "nothing late" }, h("p", {}, "The next comparison is on its way …")));
    this.refreshBar();
  }

  edit(answer) {
    if (this.busy) return;
    this.editing = answer;
    this.show();
  }

  stopEditing() {
    this.editing = null;
    this.show();
  }

  // What is shown

  say(line, kind = "") {
    this.status.textContent = line;
    this.status.className = `status ${kind}`;
  }

  /** Tell those who do not see the page. */
  announce(line) {
    this.announced.textContent = line;
  }

  /** The server cannot be reached, or ("") is back. */
  trouble(line) {
    this.lost = line !== "";
    this.refreshCount();
    this.say(line && `${this.outbox.size ? "Not sent yet" : "Cannot reach Prefloop"} — retrying (${line})`, "bad");
  }

  refreshCount() {
    this.top.refreshCount(this.standing, this.mode, this.outbox.entries, this.lost);
  }

  refreshMenu() {
    this.top.refreshMenu(this.keymap, this.task.guidelines, () => this.acts());
  }

  refreshBar() {
    const undo = h("div", { class: "other" }, button("Undo", this.keymap.hint("undo"), () => this.undo(), "quiet"));
    const [strip = "", ...rest] = this.workplace?.bar ?? [];
    this.bar.replaceChildren(strip, undo, ...rest);
    this.root.style.setProperty("--bar", `${this.bar.parentElement.offsetHeight}px`);
  }

  // What the person does

  turnTo(mode) {
    if (this.busy || mode === this.mode) return;
    this.mode = mode;
    localStorage.setItem("prefloop.mode", mode);
    this.slate = null;
    this.upcoming = [];
    this.ask();
  }

  async rename(name) {
    if (this.busy || !name) {
      this.top.showName(this.name);
      this.say("A name has 1 to 64 letters, digits or . _ @ -", "bad");
      return;
    }
    this.busy = true;
    await this.outbox.empty();
    this.name = name;
    this.known.clear(); // each person sees an order of their own
    localStorage.setItem("prefloop.name", name);
    this.slate = null;
    this.upcoming = [];
    await this.drafts.open(name);
    await this.outbox.open(name);
    this.ask();
  }

  async recent() {
    if (this.busy) return;
    await this.outbox.empty();
    const { answers } = await this.server.read(`recent?annotator=${encodeURIComponent(this.name)}`);
    if (!isOpen(this.root)) showRecent(this.root, answers, (answer) => this.edit(answer));
  }

  settings() {
    showSettings(this.root, this.keymap, () => {
      this.refreshMenu();
      this.show(); // the hints are on the buttons
    });
  }

  acts() {
    return {
      ...(!this.busy && this.workplace?.acts()),
      undo: () => this.undo(),
      recent: () => this.recent(),
      guidelines: () => this.task.guidelines && showGuidelines(this.root, this.task.guidelines),
      settings: () => this.settings(),
    };
  }

  pressed(event) {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !this.task || isOpen(this.root)) return;
    const key = keyOf(event);
    if (event.target.closest("input:is([type=range], [type=radio])") && /^(Arrow|Page|Home|End| )/.test(key)) return; // they move it
    if (event.target.closest("input:not([type=range], [type=radio]), textarea, select, [contenteditable]")) return;
    if (["Enter", " "].includes(key) && event.target.closest("button, a")) return; // it presses that button
    if (key === "Escape" && this.editing && !this.workplace?.skipping) {
      this.stopEditing();
      return;
    }
    const taken = !this.busy && this.workplace?.pressed(key);
    const act = taken ? () => {} : this.acts()[this.keymap.find(key, this.workplace?.kind ?? "sides")];
    if (!act) return;
    event.preventDefault();
    act();
  }
}
