import assert from "node:assert/strict";
import { play } from "./play.mjs";

play("the arrow keys", async (you) => {
  await you.does("echo one");
  await you.does("echo two");
  await you.prompt.fill("half");
  const key = async (name) => {
    await you.prompt.press(name);
    return you.prompt.inputValue();
  };
  assert.equal(await key("ArrowUp"), "echo two");
  assert.equal(await key("ArrowUp"), "echo one");
  assert.equal(await key("ArrowUp"), "echo one");
  assert.equal(await key("ArrowDown"), "echo two");
  assert.equal(await key("ArrowDown"), "half");
  // Within a text of several lines they move the cursor.
  await you.prompt.fill("if true\nthen echo");
  assert.equal(await key("ArrowUp"), "if true\nthen echo");
  assert.equal(await key("ArrowUp"), "echo two");
});

play("a search", async (you) => {
  await you.does("echo needle in a haystack");
  await you.does("echo hay");
  await you.page.keyboard.press("Control+r");
  const query = you.page.getByRole("combobox", { name: "Search the history" });
  const first = you.page.getByRole("option", { selected: true });
  await first.filter({ hasText: "echo hay" }).waitFor();
  await query.fill("NEEDLE");
  await first.filter({ hasText: "needle" }).waitFor();
  await you.shot("search");
  await query.press("Enter");
  assert.equal(await you.prompt.inputValue(), "echo needle in a haystack");
  await you.page.keyboard.press("Control+r");
  await query.fill("hay");
  await you.page.getByRole("option").nth(1).waitFor();
  await query.press("ArrowDown");
  await query.press("Escape");
  assert.equal(await you.prompt.inputValue(), "echo needle in a haystack");
  await you.page.keyboard.press("Control+r");
  await query.fill("nothing like this");
  await you.page.getByText("No command like this.").waitFor();
});
