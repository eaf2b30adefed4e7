// Signing in, joining by an invitation, and changing one's own password. The invitation stands behind # in the link, so no server log ever sees it.

const form = document.querySelector("form");
const status = form.querySelector(".status");
const button = form.querySelector("button");
const joining = location.pathname === "/join";
const changing = location.pathname === "/password";

if (joining) {
  document.title = "Prefloop: join";
  form.querySelector("h2").textContent = "Join";
  form.querySelector(".hint").hidden = false;
  form.password.autocomplete = "new-password";
  form.password.minLength = 10;
  button.textContent = "Join";
}

if (changing) {
  document.title = "Prefloop: password";
  form.querySelector("h2").textContent = "Change your password";
  form.querySelector(".hint").textContent = "You are signed out everywhere else.";
  form.querySelector(".hint").hidden = false;
  for (const [input, label] of [[form.name, "Old password"], [form.password, "New password"]]) input.parentElement.firstChild.data = `${label} `;
  Object.assign(form.name, { type: "password", autocomplete: "current-password", maxLength: 1024 });
  Object.assign(form.password, { autocomplete: "new-password", minLength: 10 });
  button.textContent = "Change";
}

/** Where it goes, and what is said. */
function request() {
  if (changing) return ["/api/password", { old: form.name.value, new: form.password.value }];
  const who = { name: form.name.value.trim(), password: form.password.value };
  return joining ? ["/api/join", { ...who, invitation: location.hash.slice(1) }] : ["/api/login", who];
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  status.textContent = "";
  try {
    const headers = { "content-type": "application/json" };
    const [address, body] = request();
    const reply = await fetch(address, { method: "POST", headers, body: JSON.stringify(body) });
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
