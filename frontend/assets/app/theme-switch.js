// Colours as the system has them, light, or dark; the choice is kept in this browser.
const CHOICES = { "": ["◐", "as the system"], light: ["○", "light"], dark: ["●", "dark"] };

export function themeSwitch() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const show = () => {
    const [sign, words] = CHOICES[root.dataset.theme ?? ""];
    button.textContent = sign;
    button.setAttribute("aria-label", `Colours: ${words}`);
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    const names = Object.keys(CHOICES);
    const next = names[(names.indexOf(root.dataset.theme ?? "") + 1) % names.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // It holds for this page at least.
    }
    show();
  });
  show();
}
