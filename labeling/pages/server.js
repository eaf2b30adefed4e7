// What is said to the server: every request is repeated, with the same body, until an answer comes.

export const PENDING = "prefloop.pending"; // where an answer is kept until the server has it

/** The server understood, and said no; the message says why. */
class Refused extends Error {}

export class Server {
  /** `say(line, kind)` tells the person what is wrong; `signal` ends all waiting. */
  constructor(say, signal) {
    this.say = say;
    this.signal = signal;
  }

  /** POST once and forget: for what comes again soon anyway. */
  tell(route, body) {
    const headers = { "content-type": "application/json" };
    fetch(`/api/${route}`, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => {});
  }

  /** POST until an answer comes; a network failure or a server in trouble is waited out. Rejects with what it refuses. */
  send(route, body) {
    const headers = { "content-type": "application/json" };
    return this.insist(route, { method: "POST", headers, body: JSON.stringify(body) });
  }

  /** GET, as patiently. */
  read(route) {
    return this.insist(route, {});
  }

  async insist(route, how) {
    for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
      let trouble = "no connection";
      try {
        const signal = AbortSignal.timeout(15000);
        const reply = await fetch(`/api/${route}`, { ...how, signal });
        if (reply.status === 401) {
          location.assign("/login"); // the session ended; an answer that was not sent is kept and sent afterwards
          return new Promise(() => {});
        }
        const data = await reply.json();
        if (reply.ok) {
          if (wait > 500) this.say("");
          return data;
        }
        trouble = data.error;
        if (reply.status < 500) throw new Refused(data.error);
      } catch (error) {
        if (error instanceof Refused) throw error;
      }
      const pending = sessionStorage.getItem(PENDING) ? "Not sent yet — retrying" : "Cannot reach Prefloop — retrying";
      this.say(`${pending} (${trouble})`, "bad");
      await new Promise((resume) => setTimeout(resume, wait));
      if (this.signal.aborted) return new Promise(() => {});
    }
  }
}
