// Elements from data: texts become text nodes, so that no name can be markup.

/** An element; `props`: attributes, `on` for listeners, `class`; children: elements, texts, null. */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return made;
}

// Half a surrogate pair, as of a folder whose name is no UTF-8, cannot stand in a URL.
const encoded = (part) => encodeURIComponent(String(part).replace(/\p{Surrogate}/gu, "\ufffd"));

export const path = (...parts) => `/${parts.map(encoded).join("/")}`;

export const clientPath = (job, client) => path("runs", job, "clients", client);
export const roundPath = (job, round) => path("runs", job, "rounds", round);

/** A link that the frame's router follows. */
export const link = (to, ...children) => el("a", { href: to }, ...children);

/** Go where a link would. */
export function go(to) {
  const made = link(to);
  made.hidden = true;
  document.body.append(made);
  made.click();
  made.remove();
}

/** Loads the style sheet of these views once. */
export function styled() {
  if (document.querySelector("link[data-gantt]")) return;
  document.head.append(
    el("link", { rel: "stylesheet", href: new URL("./gantt.css", import.meta.url).href, "data-gantt": "" }),
  );
}
