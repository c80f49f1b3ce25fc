// The output of a running command. The server sends lines, as HTML that it has escaped; a line that has changed is
// sent anew. What is drawn is drawn once a frame, however much comes.

// So many lines are kept on the page while the command runs; all of them are there once it has ended.
const MOST = 2000;

export class Output {
  // Of each line that is kept, its HTML.
  lines = [];
  // The number of the first of them, and of the first one that is not yet drawn.
  first = 0;
  fresh = 0;

  take({ from, lines }) {
    this.fresh = Math.min(this.fresh, from);
    this.lines.length = Math.max(0, from - this.first);
    this.lines.push(...lines.slice(Math.max(0, this.first - from)));
  }

  clear() {
    this.lines = [];
    this.first = this.fresh = 0;
  }

  // Brings a <pre> up to date.
  draw(pre) {
    const surplus = this.lines.length - MOST;
    if (surplus > 0) {
      this.lines.splice(0, surplus);
      this.first += surplus;
    }
    const shown = Number(pre.dataset.first ?? 0);
    for (let gone = shown; gone < this.first && pre.firstChild; gone++) pre.firstChild.remove();
    pre.dataset.first = this.first;
    const keep = Math.max(0, Math.min(this.fresh, this.first + pre.childElementCount) - this.first);
    while (pre.childElementCount > keep) pre.lastChild.remove();
    const rows = this.lines.slice(keep).map((line) => `<span class="row">${line}\n</span>`);
    pre.insertAdjacentHTML("beforeend", rows.join(""));
    this.fresh = this.first + this.lines.length;
  }
}
