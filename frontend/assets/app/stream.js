// Server-sent events by fetch: an EventSource gives up at an answer such as 502, and forgets how far it was.

const SLOWEST = 10_000;
// The server sends a comment every 15 s. After three of them were missed, the connection is dead.
const SILENCE = 45_000;

// Calls `on(event, data)` for each event and `state(live)` as the connection comes and goes, until `signal` is
// aborted or the server says for good that there is nothing here.
export async function follow(url, on, state, signal) {
  let last = "";
  let pause = 0;
  while (!signal.aborted) {
    try {
      const came = await once(url, last, signal, () => {
        pause = 0;
        state("live");
      }, (event, data, id) => {
        if (id) last = id;
        on(event, data);
      });
      if (!came) return state("over");
    } catch {
      // Whatever it was: below.
    }
    if (signal.aborted) return;
    state("lost");
    await rest(pause, signal);
    pause = Math.min(SLOWEST, pause * 2 || 250);
  }
}

// False where it is no use to come back.
async function once(url, last, signal, opened, on) {
  const silent = new AbortController();
  const headers = last ? { "Last-Event-ID": last } : {};
  let timer = setTimeout(() => silent.abort(), SILENCE);
  try {
    const response = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.any([signal, silent.signal]) });
    if ([204, 401, 403, 404].includes(response.status)) return false;
    if (!response.ok) throw new Error(response.statusText);
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return true;
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) dispatch(block, on);
    }
  } finally {
    clearTimeout(timer);
  }
}

function dispatch(block, on) {
  const fields = { event: "message", id: "", data: [] };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name === "data") fields.data.push(value);
    else if (name in fields) fields[name] = value;
  }
  if (fields.data.length) on(fields.event, JSON.parse(fields.data.join("\n")), fields.id);
}

// A while, or until the network is back.
function rest(pause, signal) {
  return new Promise((resume) => {
    const timer = setTimeout(resume, pause);
    const now = () => {
      clearTimeout(timer);
      resume();
    };
    addEventListener("online", now, { once: true, signal });
    signal.addEventListener("abort", now, { once: true });
  });
}
