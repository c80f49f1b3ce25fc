// Signing in without a page between: what is wrong is said beside the fields.
import { sentence } from "./sentence.js";

const form = document.getElementById("sign-in");
const problem = document.getElementById("problem");

function say(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  say("");
  try {
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(form.action, { method: "POST", body });
    if (response.ok) return location.reload();
    const { message, hint } = await response.json();
    say(hint ? `${sentence(message)} ${hint}` : sentence(message));
    document.getElementById("password").select();
  } catch {
    say("The server cannot be reached. Try again in a moment.");
  }
  button.disabled = false;
});
