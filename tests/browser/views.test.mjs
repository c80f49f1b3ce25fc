import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { play } from "./play.mjs";

async function downloaded(page, link) {
  const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
  return readFileSync(await download.path(), "utf8");
}

play("the audit log, its filters and files", async (you) => {
  await you.does("echo alpha");
  await you.does("echo 'beta, \"quoted\"'; false");
  await you.does("echo gamma");
  await you.page.getByRole("link", { name: "Audit" }).click();
  const rows = you.page.locator("#rows tbody tr");
  await rows.nth(2).waitFor();
  await you.shot("audit");
  await you.page.getByLabel("Command contains").fill("BETA");
  await you.page.getByText("One command.").waitFor();
  await you.page.waitForURL(/text=BETA/);
  await you.shot("audit filtered");
  const [audited] = await Promise.all([you.page.context().waitForEvent("page"), rows.getByRole("link", { name: "main", exact: true }).click({ modifiers: ["Control"] })]);
  await audited.locator(".command:target").getByText("beta").first().waitFor();
  await audited.close();
  const csv = await downloaded(you.page, you.page.getByRole("link", { name: "CSV", exact: true }));
  assert.equal(csv.split("\r\n").length, 3);
  assert.match(csv, /,"echo 'beta, ""quoted""'; false",failed,exit,/);
  await you.page.getByLabel("Command contains").fill("");
  await you.page.getByLabel("Outcome").selectOption("good");
  await you.page.getByText("2 commands.").waitFor();
  const json = JSON.parse(await downloaded(you.page, you.page.getByRole("link", { name: "JSON", exact: true })));
  assert.deepEqual(json.map((row) => [row.command, row.username]), [["echo alpha", you.user], ["echo gamma", you.user]]);
  await you.page.getByLabel("Session").fill("no such session");
  await you.page.getByText("Nothing matches.").waitFor();
  await you.page.goBack();
  await rows.nth(1).waitFor();
});

play("a recording", async (you) => {
  await you.does("echo to be recorded");
  await you.does(String.raw`for i in 1 2 3; do printf '\rstep %d of 3' $i; sleep 0.4; done; echo`);
  await you.page.getByText("Session", { exact: true }).click();
  const cast = await downloaded(you.page, you.page.getByRole("link", { name: "asciicast" }));
  assert.equal(JSON.parse(cast.split("\n")[0]).version, 2);
  assert.match(cast, /to be recorded/);
  // What was written over has its time, too.
  const steps = cast.split("\n").slice(1, -1).map((line) => JSON.parse(line)).filter(([, , text]) => text.startsWith("step"));
  assert.equal(steps.length, 3);
  assert.ok(steps[2][0] - steps[0][0] > 0.4, cast);
  await you.page.getByText("Session", { exact: true }).click();
  await you.page.getByRole("link", { name: "Recording" }).click();
  const player = you.page.locator(".ap-player");
  await player.waitFor();
  await player.click();
  await you.page.getByText("to be recorded").last().waitFor();
  await player.getByText("step 3 of 3").waitFor();
  await you.shot("recording");
});

play("usage", async (you) => {
  await you.does("true");
  await you.does("false");
  await you.page.getByRole("link", { name: "Usage" }).click();
  await you.page.getByRole("img", { name: "Commands a day" }).waitFor();
  assert.equal(await you.page.locator(".plot circle").count(), 4);
  const row = you.page.getByRole("row").filter({ hasText: you.user });
  assert.match(await row.innerText(), /\t2\t1\t/);
  await you.shot("usage");
});
