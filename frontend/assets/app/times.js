// Times in the reader's own zone; seconds that go on while a command runs.
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function local(root) {
  for (const time of root.querySelectorAll("time:not([title])")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    time.textContent = today ? clock.format(at) : full.format(at);
    time.title = full.format(at);
  }
}

function tick() {
  for (const span of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, (Date.now() - Date.parse(span.dataset.since)) / 1000);
    if (!(seconds >= 1)) continue;
    const minutes = Math.floor(seconds / 60);
    span.textContent = minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
  }
}

export function times() {
  local(document);
  document.addEventListener("htmx:load", (event) => local(event.detail.elt.parentElement ?? document));
  setInterval(tick, 1000);
}
