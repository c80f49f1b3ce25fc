// A menu closes when something in it was chosen, by Escape, and when one goes elsewhere.

export function menus() {
  for (const menu of document.querySelectorAll("details.menu")) {
    const summary = menu.querySelector("summary");
    const close = () => {
      if (menu.contains(document.activeElement)) summary.focus();
      menu.open = false;
    };
    menu.querySelector("ul").addEventListener("click", close);
    menu.addEventListener("keydown", (event) => event.key === "Escape" && close());
    menu.addEventListener("focusout", ({ relatedTarget: to }) => to && !menu.contains(to) && close());
    document.addEventListener("pointerdown", ({ target }) => menu.contains(target) || close());
  }
}
