// Reminding a person to rest, if they want that: after so many minutes of work without a pause.

const KEPT = "prefloop.rest";
const PAUSE_MS = 5 * 60_000; // who gives no answer for so long has rested

export function restMinutes() {
  return Number(localStorage.getItem(KEPT)) || 0;
}

export function setRest(minutes) {
  localStorage.setItem(KEPT, String(Math.max(0, Math.min(240, Math.round(Number(minutes)) || 0))));
}

export class Rest {
  constructor() {
    this.since = null; // when this stretch of work began
    this.last = 0;
  }

  /** An answer was given `now`, in milliseconds. Returns what to tell the person, or "". */
  worked(now) {
    if (this.since === null || now - this.last > PAUSE_MS) this.since = now;
    this.last = now;
    const minutes = restMinutes();
    if (!minutes || now - this.since < minutes * 60_000) return "";
    this.since = now;
    return `You have worked for ${minutes} minutes: look up, and rest a little`;
  }
}
