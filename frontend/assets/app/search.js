// Searching the history: the server finds, this chooses.

export function search(set) {
  const dialog = document.getElementById("search");
  const query = document.getElementById("query");
  const found = document.getElementById("found");
  const options = () => [...found.querySelectorAll("[role=option]")];

  const choose = (option) => {
    for (const other of options()) other.setAttribute("aria-selected", other === option);
    query.setAttribute("aria-activedescendant", option?.id ?? "");
    option?.scrollIntoView({ block: "nearest" });
  };
  const open = () => {
    query.value = "";
    dialog.showModal();
    htmx.trigger(query, "open");
  };
  const take = (option) => {
    dialog.close();
    if (option) set(option.textContent);
  };

  document.getElementById("find").addEventListener("click", open);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey && event.key === "r" && !event.shiftKey) {
      event.preventDefault();
      if (!dialog.open) open();
    }
  });
  query.addEventListener("keydown", (event) => {
    const all = options();
    const now = all.findIndex((option) => option.ariaSelected === "true");
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      choose(all.at((now + by + all.length) % all.length));
    } else if (event.key === "Enter") {
      event.preventDefault();
      take(all[now]);
    }
  });
  found.addEventListener("click", (event) => take(event.target.closest("[role=option]")));
  found.addEventListener("htmx:afterSwap", () => choose(options()[0]));
}
