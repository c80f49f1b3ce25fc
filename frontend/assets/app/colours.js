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
    const parts = rgb(index);
    const colour = `rgb(${parts.join(" ")})`;
    // They are made for black ground. What is too bright or too dark for the page's own is brought nearer to the middle.
    const bright = (parts[0] * 0.3 + parts[1] * 0.59 + parts[2] * 0.11) / 255;
    const onLight = Math.round(100 - 60 * bright);
    const onDark = Math.round(Math.min(100, 50 + 150 * bright));
    rules.push(`.fg${index}{--fg:light-dark(color-mix(in oklab,${colour} ${onLight}%,#000),color-mix(in oklab,${colour} ${onDark}%,#fff))}`);
    rules.push(`.bg${index}{--bk:light-dark(color-mix(in oklab,${colour} 45%,#fff),color-mix(in oklab,${colour} 65%,#000))}`);
  }
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(rules.join("\n"));
  document.adoptedStyleSheets.push(sheet);
}
