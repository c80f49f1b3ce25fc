// What went wrong, in the words of the server, at the top of the page; and what a screen reader is told.
import { sentence } from "./sentence.js";

export function notice(text) {
  const box = document.getElementById("notice");
  box.querySelector("p").textContent = text;
  box.hidden = !text;
}

export function speak(text) {
  document.getElementById("spoken").textContent = text;
}

function reason(request) {
  if (request.status === 401) return "You are signed out. Reload the page to sign in again.";
  try {
    const { message, hint } = JSON.parse(request.responseText);
    return hint ? `${sentence(message)} ${hint}` : sentence(message);
  } catch {
    return `The server answered ${request.status} ${request.statusText}.`;
  }
}

export function notices() {
  document.querySelector("#notice button").addEventListener("click", () => notice(""));
  document.addEventListener("htmx:responseError", (event) => notice(reason(event.detail.xhr)));
  document.addEventListener("htmx:sendError", () =>
    notice("The server cannot be reached. Nothing was sent; what you typed is still there."));
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!event.detail.successful) return;
    notice("");
    // A button may say where to go once it is done.
    const then = event.detail.elt.dataset?.then;
    if (!then) return;
    // Drafts are nobody else's business.
    sessionStorage.clear();
    location.assign(then);
  });
}
