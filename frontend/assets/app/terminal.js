// One session: its log, what streams into it, and the prompt.
import { follow } from "./stream.js";
import { Output } from "./output.js";
import { notice, speak } from "./notice.js";
import { prompt } from "./prompt.js";
import { search } from "./search.js";
import { scrolling } from "./scrolling.js";

const outputs = new Map();
// Commands that the stream has told of and the page does not show yet, and those of them that have ended.
const missing = new Set();
const over = new Set();
// Those that are being fetched.
const asked = new Set();
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
  const words = { live: "live", lost: "reconnecting …", over: "signed out", ready: "ready" };
  const line = document.getElementById("connection");
  if (state === "lost" && line.dataset.state === "live") speak("Connection lost, reconnecting");
  if (state === "live" && line.dataset.state === "lost") speak("Connected again");
  if (state === "live") catchUp();
  line.dataset.state = state;
  line.textContent = words[state];
  if (state === "over") notice("This page gets no more news of the session. Reload it to sign in again.");
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
    if (!find(id)) fresh(id);
  }
}

// Ends that could not be shown yet.
function catchUp() {
  for (const id of over) if (find(id)) ended(id);
}

// What is shown as running although it has ended is fetched anew.
async function ended(id) {
  if (!isFinished(find(id)) && !await fresh(id)) return;
  over.delete(id);
  outputs.delete(id);
  speak(find(id)?.getAttribute("aria-label") ?? "");
}

// Puts a command as it is now into the log; false if it cannot be had. Not by htmx.ajax: that sends one request at a
// time, and forgets all that wait but the last.
async function fresh(id) {
  if (asked.has(id)) return false;
  asked.add(id);
  const html = await fetch(`/page/command/${id}`).then((response) => response.ok && response.text(), () => "");
  asked.delete(id);
  if (!html) return false;
  const article = find(id);
  const next = [...document.querySelectorAll("#log .command")].find((other) => Number(other.dataset.id) > id);
  if (article) htmx.swap(article, html, { swapStyle: "outerHTML" });
  else if (next) htmx.swap(next, html, { swapStyle: "beforebegin" });
  else htmx.swap(document.getElementById("log"), html, { swapStyle: "beforeend" });
  return true;
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
    catchUp();
    busy();
    draw();
    stick();
  });
  busy();
}
