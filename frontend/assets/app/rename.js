// Giving a session another name: in a dialog, and then wherever the page shows it.

export function rename() {
  const dialog = document.getElementById("rename");
  if (!dialog) return;
  const form = dialog.querySelector("form");
  const field = form.elements.name;
  let id;
  let old;

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-rename]");
    if (!button) return;
    id = button.dataset.rename;
    old = document.querySelector(`[data-named="${id}"]`).textContent;
    field.value = old;
    dialog.showModal();
    field.select();
  });
  form.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
  form.addEventListener("htmx:configRequest", ({ detail }) => detail.path += id);
  form.addEventListener("htmx:afterRequest", ({ detail }) => {
    // What went wrong is told behind it.
    dialog.close();
    if (detail.successful) show(id, old, field.value);
  });
}

function show(id, old, name) {
  for (const element of document.querySelectorAll(`[data-named="${id}"]`)) {
    element.textContent = name;
    const link = element.closest("a[title]");
    if (link) link.title = link.title.replace(old, () => name);
  }
  const shown = document.querySelector(`[aria-current] [data-named="${id}"]`);
  if (shown) document.title = document.title.replace(old, () => name);
}
