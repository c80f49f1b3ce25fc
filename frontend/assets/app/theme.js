// The colours that were chosen, before anything is painted. Loaded at once, and not as a module, for that.
try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be switched off: then the system decides.
}
