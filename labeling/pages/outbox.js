// Answers on their way: each is on disk before it is sent, is sent until the server has answered, and then forgotten.
// The person goes on meanwhile. A repeat is harmless: one client_key is one label.

import { everything, forget, keep } from "./kept.js";

export class Outbox {
  /** `told.holding()`: what goes with each request beside the answer; `told.changed()` is called when the size changes; `told.sent(reply)` or `told.refused(line)` after each answer. */
  constructor(server, told) {
    this.server = server;
    this.told = told;
    this.entries = [];
    this.sending = false;
    this.waiting = []; // whoever waits until all is sent
  }

  get size() {
    return this.entries.length;
  }

  /** Send what this person's earlier pages could not. */
  async open(annotator) {
    const kept = await everything("answers");
    this.entries = kept.filter(({ body }) => body.annotator === annotator).sort((a, b) => a.number - b.number);
    this.told.changed();
    this.send();
  }

  /** Take an answer: `body` goes to `route`. */
  async add(route, body) {
    const number = (this.entries.at(-1)?.number ?? 0) + 1;
    const entry = { route, body, number };
    this.entries.push(entry);
    this.told.changed();
    await keep("answers", body.client_key, entry);
    this.send();
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    while (this.size) {
      const { route, body } = this.entries[0];
      let reply = null;
      let refusal = "";
      try {
        reply = await this.server.send(route, { ...body, ...this.told.holding() }, true);
      } catch (refused) {
        refusal = refused.message;
      }
      this.entries.shift();
      this.told.changed();
      await forget("answers", body.client_key);
      if (reply) this.told.sent(reply);
      else this.told.refused(refusal);
    }
    this.sending = false;
    for (const go of this.waiting.splice(0)) go();
  }

  /** Resolves when nothing is left to be sent. */
  async empty() {
    if (this.size || this.sending) await new Promise((go) => this.waiting.push(go));
  }
}
