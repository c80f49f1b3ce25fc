// Postgres begins its messages with a small letter, and ends them without a full stop.
export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1).replace(/\.?$/, ".")}`;
}
