// The log stays at its end while the reader is there, and is left alone while the reader looks at something above.
const NEAR = 48;

export function scrolling() {
  const screen = document.getElementById("screen");
  const latest = document.getElementById("latest");
  let following = !location.hash;
  const toEnd = () => {
    screen.scrollTop = screen.scrollHeight;
  };
  screen.addEventListener("scroll", () => {
    following = screen.scrollHeight - screen.scrollTop - screen.clientHeight < NEAR;
    latest.hidden = following;
  }, { passive: true });
  latest.addEventListener("click", () => {
    toEnd();
    document.getElementById("command").focus();
  });
  // A phone's keyboard makes the screen smaller.
  new ResizeObserver(() => following && toEnd()).observe(screen);
  document.getElementById("prompt").addEventListener("submit", () => {
    following = true;
  });
  const linked = location.hash && document.getElementById(location.hash.slice(1));
  if (linked) linked.scrollIntoView({ block: "center" });
  else toEnd();
  return () => following && toEnd();
}
