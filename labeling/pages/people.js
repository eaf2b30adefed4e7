// The owner's page of accounts: who there is and what each may do, links for those who are to come, and
// tokens of programs and webhooks.

import { button, h } from "./elements.js";

const ROLES = ["labeler", "reviewer", "owner"];
const form = document.querySelector("form");
const made = form.querySelector("output");
const problem = document.querySelector(".problem");
const list = (id) => document.getElementById(id);

async function ask(route, body, method = body ? "POST" : "GET") {
  const headers = { "content-type": "application/json" };
  const reply = await fetch(`/api/${route}`, { method, headers, body: body && JSON.stringify(body) });
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
    const asked = ["people", "progress", "invites", "tokens", "webhooks"].map((route) => ask(route));
    const [{ people }, { annotators }, { invites }, { tokens }, { webhooks }] = await Promise.all(asked);
    list("people").replaceChildren(...people.map((person) => row(person, annotators)));
    fill("invites", invites, invitation);
    fill("tokens", tokens.filter(({ kind }) => kind === "token"), token);
    fill("webhooks", webhooks, webhook);
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

/** Rows of a table that is there only while it has some. */
function fill(id, things, rowOf) {
  list(id).replaceChildren(...things.map(rowOf));
  list(id).closest("section").hidden = !things.length;
}

const day = (seconds) => new Date(1000 * seconds).toLocaleDateString();

function invitation({ id, role, name, by, expires }) {
  const withdraw = button("Withdraw", "", () => act(() => ask(`invites/${id}`, undefined, "DELETE")), "", "", `Withdraw the invitation of ${name || `a ${role}`}`);
  return h("tr", {}, h("th", { scope: "row" }, role), h("td", {}, name || "any"), h("td", {}, by), h("td", {}, day(expires)), h("td", {}, withdraw));
}

function token({ id, account, note, created, expires }) {
  const end = button("End", "", () => act(() => ask(`tokens/${id}`, undefined, "DELETE")), "", "", `End the token ${note} of ${account}`);
  return h("tr", {}, h("th", { scope: "row" }, account), h("td", {}, note), h("td", {}, day(created)), h("td", {}, day(expires)), h("td", {}, end));
}

function webhook({ id, url, events, last_error }) {
  const remove = button("Remove", "", () => act(() => ask(`webhooks/${id}`, undefined, "DELETE")), "", "", `Remove the webhook to ${url}`);
  return h("tr", {}, h("th", { scope: "row" }, url), h("td", {}, events.join(", ")), h("td", {}, last_error), h("td", {}, remove));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const role = form.role.value;
  const name = form.elements.name.value.trim(); // form.name would be the form's own name
  act(async () => {
    const { link } = await ask("invites", { role, ...(name && { name }) });
    const shown = h("input", { readonly: "", value: link, "aria-label": `Link for a ${role}` });
    made.replaceChildren(shown, ` makes one ${role}${name && ` named ${name}`}, within seven days. Send it to nobody else.`);
    form.elements.name.value = "";
    shown.select();
  });
});

form.querySelector("button").disabled = false; // only now does a click come here
refresh();
