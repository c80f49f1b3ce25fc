// The prompt: keys, history, and a draft that outlives a reload.

export function prompt() {
  const form = document.getElementById("prompt");
  const field = document.getElementById("command");
  const cancel = document.getElementById("cancel");
  const draft = `draft ${location.pathname}`;
  // Whoever was faster than this script keeps what was typed.
  field.value ||= sessionStorage.getItem(draft) ?? "";

  const set = (text) => {
    field.value = text;
    field.focus();
    field.setSelectionRange(text.length, text.length);
    keep();
  };
  const keep = () => sessionStorage.setItem(draft, field.value);
  const cancelRunning = () => document.querySelector(".command[data-status=running] .cancel, .command .cancel")?.click();
  const recall = past(field, set);

  field.addEventListener("input", () => {
    keep();
    recall.reset();
  });
  cancel.addEventListener("click", () => {
    cancelRunning();
    field.focus();
  });
  for (const sample of document.querySelectorAll(".sample")) {
    sample.addEventListener("click", () => set(sample.textContent));
  }

  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.key === "ArrowUp" && onFirstLine(field)) {
      recall.go(-1, event);
    } else if (event.key === "ArrowDown" && onLastLine(field)) {
      recall.go(1, event);
    }
  });

  document.addEventListener("keydown", (event) => {
    if (!event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (event.key === "c" && !copying(field)) {
      event.preventDefault();
      if (document.querySelector(".command .cancel")) cancelRunning();
      else set("");
      recall.reset();
    }
  });

  // Typing anywhere is typing here.
  document.addEventListener("keypress", (event) => {
    const within = event.target.closest("input, textarea, select, button, a, summary, dialog");
    if (!within && !event.ctrlKey && !event.metaKey && event.key.length === 1) field.focus();
  });

  // Only what has arrived is taken from the field.
  let sent = "";
  form.addEventListener("htmx:configRequest", () => {
    sent = field.value;
  });
  form.addEventListener("htmx:afterRequest", (event) => {
    // The first command of all is answered with another page to go to, which is no success to htmx.
    if (event.target !== form || !(event.detail.xhr.status >= 200 && event.detail.xhr.status < 300)) return;
    if (field.value === sent) set("");
    recall.reset();
  });
  return set;
}

// Ctrl-C copies where something is selected.
function copying(field) {
  return field.selectionStart !== field.selectionEnd || !getSelection().isCollapsed;
}

function onFirstLine(field) {
  return !field.value.slice(0, field.selectionStart).includes("\n");
}

function onLastLine(field) {
  return !field.value.slice(field.selectionEnd).includes("\n");
}

// The commands of this session, by the arrow keys; what was being typed is the newest of them.
function past(field, set) {
  let at = null;
  let typed = "";
  const all = () => [...document.querySelectorAll("#log .line")].map((line) => line.textContent);
  return {
    reset() {
      at = null;
    },
    go(by, event) {
      const lines = all().filter((line, index, every) => line !== every[index - 1]);
      if (at === null && by > 0) return;
      event.preventDefault();
      if (at === null) {
        at = lines.length;
        typed = field.value;
      }
      at = Math.max(0, at + by);
      if (at < lines.length) return set(lines[at]);
      at = null;
      set(typed);
    },
  };
}
