// A replay that is still going on: each command is shown anew as it begins and ends.
import { follow } from "./stream.js";
import { speak } from "./notice.js";

const pairs = document.getElementById("pairs");
const leaving = new AbortController();
const wanted = new Set();
let busy = false;

async function show(...ids) {
  for (const id of ids) wanted.add(String(id));
  if (busy) return;
  busy = true;
  // Also those that are added meanwhile.
  for (const id of wanted) {
    wanted.delete(id);
    const pair = document.getElementById(`r${id}`);
    const html = pair && await fetch(`/page/replayed/${id}${location.search}`).then((response) => response.ok && response.text(), () => "");
    if (html) htmx.swap(pair, html, { swapStyle: "outerHTML" });
  }
  busy = false;
  if (open().length) return;
  leaving.abort();
  speak(document.querySelector("#verdict span").textContent);
}

const open = () => [...pairs.querySelectorAll("[data-verdict=open]")];

if (pairs.dataset.follow) {
  addEventListener("pagehide", () => leaving.abort());
  const react = (event, data) => ["command", "end"].includes(event) && show(data.command_id ?? data.id);
  // What could not be shown while the connection was lost is shown when it is back.
  const state = (now) => now === "live" && show(...open().map((pair) => pair.id.slice(1)));
  follow(pairs.dataset.follow, react, state, leaving.signal);
}
