// One session: its log, what streams into it, and the prompt.
import { follow } from "./stream.js";
import { Output } from "./output.js";
import { speak } from "./notice.js";
import { prompt } from "./prompt.js";
import { search } from "./search.js";
import { scrolling } from "./scrolling.js";

const outputs = new Map();
// Commands that the stream has told of and the page does not show yet, and those of them that have ended.
const missing = new Set();
const over = new Set();
// How many are being sent: these come by themselves, and the stream may be faster.
let sending = 0;
let stick;

const find = (id) => document.getElementById(`c${id}`);
const isFinished = (article) => ["done", "failed"].includes(article.dataset.status);

export function terminal() {
  const log = document.getElementById("log");
  if (!log) return;
  stick = scrolling();
  search(prompt());
  watchSending(log);
  const session = document.querySelector("#prompt [name=environment_id]")?.value;
  const leaving = new AbortController();
  addEventListener("pagehide", () => leaving.abort());
  // Back from the browser's own cache: the page may be old.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  if (session) follow(`/events/session/${session}${seen(log)}`, react, show, leaving.signal);
  else show("ready");
}

// Where the stream is to begin: after the last command that the page has whole.
function seen(log) {
  const articles = [...log.querySelectorAll(".command")];
  const open = articles.findIndex((article) => !isFinished(article));
  const last = open < 0 ? articles.at(-1) : articles[open - 1];
  if (last) return `?after=${last.dataset.id}`;
  return log.querySelector(".earlier") ? "" : "?after=0";
}

function show(state) {
  const words = { live: "live", lost: "reconnecting …", over: "ended", ready: "ready" };
  const line = document.getElementById("connection");
  if (state === "lost" && line.dataset.state === "live") speak("Connection lost, reconnecting");
  if (state === "live" && line.dataset.state === "lost") speak("Connected again");
  line.dataset.state = state;
  line.textContent = words[state];
}

function react(event, data) {
  const id = data.command_id ?? data.id;
  switch (event) {
    case "command":
      return find(id) ? mark(find(id), data) : fetchMissing(id);
    case "lines":
      output(id).take(data);
      return draw();
    case "restart":
      output(id).clear();
      return draw();
    case "end":
      over.add(id);
      return find(id) ? ended(id) : fetchMissing(id);
  }
}

function output(id) {
  if (!outputs.has(id)) outputs.set(id, new Output());
  return outputs.get(id);
}

let drawing = false;

function draw() {
  if (drawing) return;
  drawing = true;
  // A page that is not seen has no frames.
  const soon = document.hidden ? (then) => setTimeout(then, 100) : requestAnimationFrame;
  soon(() => {
    drawing = false;
    for (const [id, lines] of outputs) {
      const article = find(id);
      if (!article) continue;
      if (isFinished(article)) outputs.delete(id);
      else lines.draw(article.querySelector(".output"));
    }
    stick();
  });
}

function mark(article, { status, started_at: started }) {
  if (isFinished(article) || status === "done" || status === "failed") return;
  article.dataset.status = status;
  const exit = article.querySelector(".exit");
  exit.className = `exit ${status}`;
  exit.textContent = status === "running" ? "running" : "waiting";
  if (started) article.querySelector(".duration").dataset.since = started;
  busy();
}

// Commands that another page, or a program, has submitted.
function fetchMissing(id) {
  if (id) missing.add(id);
  if (sending) return;
  for (const id of missing) {
    missing.delete(id);
    if (!find(id)) htmx.ajax("GET", `/page/command/${id}`, { target: "#log", swap: "beforeend" });
  }
}

// What is shown as running although it has ended is fetched anew.
async function ended(id) {
  over.delete(id);
  if (!isFinished(find(id))) await htmx.ajax("GET", `/page/command/${id}`, { target: `#c${id}`, swap: "outerHTML" });
  outputs.delete(id);
  speak(find(id)?.getAttribute("aria-label") ?? "");
}

// The button that cancels stands where there is something to cancel.
function busy() {
  const running = document.querySelector("[data-status=running], [data-status=pending]");
  document.getElementById("cancel").hidden = !running;
  document.title = document.title.replace(/^● /, running ? "● " : "").replace(/^(?!● )/, running ? "● " : "");
}

function watchSending(log) {
  const isRun = (event) => event.detail.requestConfig?.path.match(/^\/page\/(run|again)/);
  document.addEventListener("htmx:beforeRequest", (event) => isRun(event) && sending++);
  document.addEventListener("htmx:afterRequest", (event) => {
    if (isRun(event)) sending--;
    fetchMissing();
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    // The stream may have been faster: one article a command.
    const id = /^\s*<article[^>]* id="(c\d+)"/.exec(event.detail.serverResponse)?.[1];
    if (id && event.detail.target === log) document.getElementById(id)?.remove();
  });
  document.addEventListener("htmx:afterSwap", () => {
    if (log.querySelector(".command")) document.getElementById("empty")?.remove();
    for (const id of over) if (find(id)) ended(id);
    busy();
    draw();
    stick();
  });
  busy();
}
