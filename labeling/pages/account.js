// Signing in, and joining by an invitation. The invitation stands behind # in the link, so no server log ever sees it.

const form = document.querySelector("form");
const status = form.querySelector(".status");
const button = form.querySelector("button");
const joining = location.pathname === "/join";

if (joining) {
  document.title = "Prefloop: join";
  form.querySelector("h2").textContent = "Join";
  form.querySelector(".hint").hidden = false;
  form.password.autocomplete = "new-password";
  form.password.minLength = 10;
  button.textContent = "Join";
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  status.textContent = "";
  const body = { name: form.name.value.trim(), password: form.password.value };
  if (joining) body.invitation = location.hash.slice(1);
  try {
    const headers = { "content-type": "application/json" };
    const reply = await fetch(joining ? "/api/join" : "/api/login", { method: "POST", headers, body: JSON.stringify(body) });
    const data = await reply.json();
    if (!reply.ok) throw new Error(data.error);
    location.replace(next());
  } catch (error) {
    status.textContent = error instanceof TypeError ? "Cannot reach Prefloop: try again" : error.message;
    button.disabled = false;
  }
});

button.disabled = false; // before this, the browser would have put the password into the page's address

/** Where the person wanted to go: a page of this site, whatever the address says. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  return /^\/(?![/\\])/.test(wanted) ? wanted : "/";
}
