// Making the page's elements. Strings become text, never markup: much of what is shown comes from a model.

/** Make an element; strings among the children become text. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const LONG = 20_000; // characters: what is longer stands in parts, and the browser lays out only those in sight
const PART = /[^]{1,4000}[^\n]*\n?/g; // to the end of a line, whose break ends the part anyway

/** What somebody said: plain words, or where they are more than that the HTML which the server has made harmless. */
export function said(text, html) {
  if (!html && text.length > LONG) return h("div", { class: "text" }, ...text.match(PART).map((part) => h("div", { class: "part" }, part)));
  if (!html) return h("div", { class: "text" }, text || h("em", {}, "(empty answer)"));
  const element = h("div", { class: "text rich" });
  element.innerHTML = html; // see labeling/rich_text.py: an allow-list of plain elements
  return element;
}

/** A button with its key; a mouse click does not leave the focus on it, or Enter would press it again. */
export function button(title, key, act, kind = "", hint = "", name = hint) {
  const click = (event) => {
    if (event.detail) event.currentTarget.blur();
    act(event);
  };
  const named = { ...(hint && { title: hint }), ...(name && { "aria-label": name }) };
  return h("button", { type: "button", class: kind, onclick: click, ...named }, title, key ? h("kbd", {}, key) : "");
}

/** Act on the first click of a rapid series only. */
export function once(event, act) {
  if (event.detail <= 1) act();
}
