// The colours 16 to 255 of a terminal, as classes: a rule each would be most of the style sheet.
const STEPS = [0, 95, 135, 175, 215, 255];

function rgb(index) {
  if (index >= 232) return Array(3).fill(8 + 10 * (index - 232));
  const cube = index - 16;
  return [STEPS[Math.floor(cube / 36)], STEPS[Math.floor(cube / 6) % 6], STEPS[cube % 6]];
}

export function colours() {
  const rules = [];
  for (let index = 16; index < 256; index++) {
    const colour = `rgb(${rgb(index).join(" ")})`;
    // They are made for dark ground; on light ground text in them is darkened, so that it can be read.
    rules.push(`.fg${index}{--fg:light-dark(color-mix(in oklab,${colour} 60%,#000),${colour})}`);
    rules.push(`.bg${index}{--bk:light-dark(color-mix(in oklab,${colour} 45%,#fff),color-mix(in oklab,${colour} 65%,#000))}`);
  }
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(rules.join("\n"));
  document.adoptedStyleSheets.push(sheet);
}
