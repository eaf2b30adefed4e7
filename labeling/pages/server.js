// What is said to the server: every request is repeated, with the same body, until an answer comes.

/** The server understood, and said no; the message says why. */
class Refused extends Error {}

export class Server {
  /** `trouble(line)` tells the person what is wrong, or with "" that it is over; `signal` ends all waiting. */
  constructor(trouble, signal) {
    this.trouble = trouble;
    this.signal = signal;
  }

  /** POST once and forget: for what comes again soon anyway. */
  tell(route, body) {
    const headers = { "content-type": "application/json" };
    fetch(`/api/${route}`, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => {});
  }

  /** POST until an answer comes; a network failure or a server in trouble is waited out. Rejects with what it refuses.
   *  `own`: it is this person's and nobody else's, so it waits while another tab has signed in as somebody else. */
  send(route, body, own = false) {
    const headers = { "content-type": "application/json" };
    return this.insist(route, { method: "POST", headers, body: JSON.stringify(body) }, own);
  }

  /** GET, as patiently. */
  read(route) {
    return this.insist(route, {});
  }

  async insist(route, how, own = false) {
    for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
      let trouble = "no connection";
      try {
        const signal = AbortSignal.timeout(15000);
        const reply = await fetch(`/api/${route}`, { ...how, signal });
        if (reply.status === 401) {
          location.assign("/login"); // the session ended; answers that were not sent are kept and sent afterwards
          return new Promise(() => {});
        }
        const data = await reply.json();
        if (reply.ok) {
          if (wait > 500) this.trouble("");
          return data;
        }
        trouble = data.error;
        if (reply.status < 500 && !(own && data.signed_in)) throw new Refused(data.error);
      } catch (error) {
        if (error instanceof Refused) throw error;
      }
      this.trouble(trouble);
      await connectedOrAfter(wait);
      if (this.signal.aborted) return new Promise(() => {});
    }
  }
}

/** Resolves after `milliseconds`, or as soon as the browser says that there is a network again. */
function connectedOrAfter(milliseconds) {
  return new Promise((resume) => {
    const go = () => {
      clearTimeout(timer);
      removeEventListener("online", go);
      resume();
    };
    const timer = setTimeout(go, milliseconds);
    addEventListener("online", go);
  });
}
