// What a swap takes away from those who do not look, or do not point: where they were, and what has happened.
import { speak } from "./notice.js";

export function swaps() {
  let within = "";
  document.addEventListener("htmx:beforeSwap", ({ detail: { target } }) => {
    within = target.contains(document.activeElement) ? target.id : "";
  });
  document.addEventListener("htmx:afterSettle", () => {
    // What had the focus is gone: what has taken its place gets it.
    if (within && document.activeElement === document.body) document.getElementById(within)?.focus();
    within = "";
  });
  document.addEventListener("htmx:afterRequest", ({ detail: { successful, requestConfig } }) => {
    const { say } = requestConfig.elt.dataset;
    if (successful && say) speak(say);
  });
}
