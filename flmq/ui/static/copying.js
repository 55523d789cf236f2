// A button that copies a text, with one click.

import { el } from "./gantt/dom.js";

export function copying(text, what, label = "copy") {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${what}`, title: `Copy ${what}` }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS, elsewhere than on loopback, browsers have no clipboard.
      const field = el("textarea", { class: "unseen" }, text);
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
