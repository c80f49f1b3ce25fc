// Copying a secret that is shown once.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  const field = document.getElementById(button.dataset.copies);
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    button.textContent = "Copied";
  } catch {
    // Not allowed, or no https: it is selected, for Ctrl-C.
    button.textContent = "Press Ctrl C";
  }
});
