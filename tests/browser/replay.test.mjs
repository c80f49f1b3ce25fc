import assert from "node:assert/strict";
import { play } from "./play.mjs";

async function replayed(you) {
  await you.page.getByText("Session", { exact: true }).click();
  await you.page.getByRole("button", { name: "Replay" }).click();
  await you.page.waitForURL(/\/replay\//);
}

play("a replay beside what it repeats", async (you) => {
  const { page } = you;
  await you.does("cd /usr; seq 3");
  await you.does(String.raw`printf 'same\n'; date +%s%N; printf '<script>\e[31msame\e[0m\n'`);
  await you.does("test -e /tmp/none; exit $((RANDOM % 2 + 2))");
  await you.does("echo end");
  await replayed(you);
  await page.locator("#verdict").getByText(/^\d of 4 differs?\.$/).waitFor();
  const pair = (command) => page.getByRole("article").filter({ hasText: command });
  assert.equal(await page.locator(".pair").count(), 4);
  assert.equal(await page.locator("script:not([src])").count(), 0);
  const dates = pair("date +%s%N");
  await dates.getByText("other output", { exact: true }).waitFor();
  const [first, second] = await dates.locator(".output").allInnerTexts();
  assert.notEqual(first, second);
  const lines = (side) => side.split("\n").filter(Boolean);
  assert.deepEqual([lines(first)[0], lines(first)[2]], ["same", "<script>same"]);
  assert.deepEqual((await dates.locator(".marked").allInnerTexts()).map((line) => line.trim()), [lines(first)[1], lines(second)[1]]);
  await you.shot("replay");
  // What is the same is folded, and opens by key.
  const same = pair("echo end");
  assert.equal(await same.locator(".output").first().isVisible(), false);
  await same.locator("summary").focus();
  await page.keyboard.press("Enter");
  assert.deepEqual(await same.locator(".output").allInnerTexts().then((all) => all.map((text) => text.trim())), ["end", "end"]);
  await page.getByRole("link", { name: "Only what differs" }).click();
  await pair("echo end").waitFor({ state: "detached" });
  await dates.waitFor();
  await page.getByRole("link", { name: "Its replay" }).click();
  await page.getByRole("navigation", { name: "Open sessions" }).getByRole("link", { name: "replay of main" }).waitFor();
  await page.getByText("Session", { exact: true }).click();
  await page.getByRole("link", { name: "Compare" }).click();
  await page.getByRole("heading", { name: "main, replayed" }).waitFor();
});

play("a replay while it goes on", async (you) => {
  const { page } = you;
  await you.does("echo one");
  const slow = await you.run("echo slow; sleep 600");
  await you.prints(slow, /slow/);
  await page.keyboard.press("Control+c");
  await you.ended(slow, "failed");
  await you.does("echo three");
  await replayed(you);
  await page.getByText("1 of 3 repeated, 0 differ so far").waitFor();
  await page.getByText("running", { exact: true }).waitFor();
  await you.shot("replay running");
  await page.getByRole("link", { name: "Its replay" }).click();
  await page.locator(".command[data-status=running]").getByText("slow").last().waitFor();
  const other = await page.context().newPage();
  await other.goto(page.url().replace("/session/", "/replay/"));
  await other.getByText("running", { exact: true }).waitFor();
  await page.keyboard.press("Control+c");
  await other.locator("#verdict").getByText("All 3 did the same.").waitFor();
});

play("a replay that is none", async (you) => {
  await you.does("true");
  const session = await you.page.locator("#prompt [name=environment_id]").inputValue();
  for (const id of [session, "x"]) {
    await you.page.goto(new URL(`/replay/${id}`, you.url).href);
    await you.page.getByRole("heading", { name: "There is no such" }).waitFor();
  }
}, { allowed: /404 \(Not Found\)/ });

play("another name for a session", async (you) => {
  const { page } = you;
  await you.does("true");
  await page.getByText("Session", { exact: true }).click();
  await page.getByRole("button", { name: "Rename" }).click();
  const dialog = page.getByRole("dialog", { name: "Rename the session" });
  await you.shot("rename");
  await dialog.getByLabel("Name").fill("<b>$& builds</b>");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "hidden" });
  await page.getByRole("navigation", { name: "Open sessions" }).getByRole("link", { name: "<b>$& builds</b>" }).waitFor();
  assert.equal(await page.title(), "<b>$& builds</b> · pg_shell");
  assert.match(await you.state(), /<b>\$& builds<\/b> ~/);
  await page.locator("#spoken").filter({ hasText: "Renamed" }).waitFor({ state: "attached" });
  await page.getByRole("link", { name: "Sessions" }).click();
  await page.getByRole("button", { name: "Rename" }).focus();
  await page.keyboard.press("Enter");
  await page.keyboard.type("builds");
  await page.keyboard.press("Enter");
  await page.locator(".tree").getByRole("link", { name: "builds", exact: true }).waitFor();
  // Back to where one was.
  await dialog.waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Rename");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await page.reload();
  await page.locator(".tree").getByRole("link", { name: "builds", exact: true }).waitFor();
});
