// The owner's page of accounts: who there is and what each may do, and links for those who are to come.

import { button, h } from "./elements.js";

const ROLES = ["labeler", "reviewer", "owner"];
const form = document.querySelector("form");
const made = form.querySelector("output");
const problem = document.querySelector(".problem");
const rows = document.querySelector("tbody");

async function ask(route, body) {
  const headers = { "content-type": "application/json" };
  const reply = await fetch(`/api/${route}`, body && { method: "POST", headers, body: JSON.stringify(body) });
  const data = await reply.json();
  if (!reply.ok) throw new Error(data.error);
  return data;
}

/** Do something, say what went wrong, and show how things stand after it. */
async function act(what) {
  problem.textContent = "";
  try {
    await what();
  } catch (error) {
    problem.textContent = error instanceof TypeError ? "Cannot reach Prefloop: try again" : error.message;
  }
  await refresh();
}

async function refresh() {
  try {
    const [{ people }, { annotators }] = await Promise.all([ask("people"), ask("progress")]);
    rows.replaceChildren(...people.map((person) => row(person, annotators)));
  } catch (error) {
    problem.textContent ||= error instanceof TypeError ? "Cannot reach Prefloop: try again" : error.message;
  }
}

function row({ name, role, closed, script }, labels) {
  const change = (what) => act(() => ask(`people/${encodeURIComponent(name)}`, what));
  const roles = h("select", { "aria-label": `Role of ${name}`, onchange: (event) => change({ role: event.target.value }) },
    ...ROLES.map((each) => h("option", each === role ? { selected: "" } : {}, each)));
  const switched = button(closed ? "Open again" : "Close", "", () => change({ closed: !closed }), "", "", `${closed ? "Open" : "Close"} the account of ${name}`);
  const given = labels[`${script ? "script" : "human"}:${name}`] ?? 0;
  return h("tr", { class: closed ? "closed" : "" },
    h("th", { scope: "row" }, name, script ? " (program)" : "", closed ? " (closed)" : ""),
    h("td", {}, script ? role : roles), h("td", {}, `${given}`), h("td", {}, switched));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const role = form.role.value;
  act(async () => {
    const { link } = await ask("invites", { role });
    const shown = h("input", { readonly: "", value: link, "aria-label": `Link for a ${role}` });
    made.replaceChildren(shown, ` makes one ${role}, within seven days. Send it to nobody else.`);
    shown.select();
  });
});

form.querySelector("button").disabled = false; // only now does a click come here
refresh();
