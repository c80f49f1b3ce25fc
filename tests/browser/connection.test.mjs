import assert from "node:assert/strict";
import { after } from "node:test";
import { URL_OF_SERVER, play } from "./play.mjs";
import { proxy } from "./proxy.mjs";

const between = await proxy(URL_OF_SERVER);
after(() => between.close());

play("nothing is lost when the connection drops", async (you) => {
  await you.does("true");
  await you.live();
  const article = await you.run("for i in $(seq 1 40); do echo line $i; sleep 0.1; done");
  await you.prints(article, /line 5\n/);
  between.cut();
  await you.page.locator("#connection[data-state=lost]").waitFor();
  await you.shot("connection lost");
  // What is typed meanwhile stays.
  await you.prompt.fill("echo typed meanwhile");
  await you.prompt.press("Enter");
  await you.page.getByText("The server cannot be reached.").waitFor();
  assert.equal(await you.prompt.inputValue(), "echo typed meanwhile");
  between.mend();
  await you.live();
  const lines = Array.from({ length: 40 }, (_, i) => `line ${i + 1}\n`);
  assert.equal(await you.ended(article), lines.join(""));
  await you.shot("connection back");
  await you.prompt.press("Enter");
  await you.page.locator(".command:last-of-type .output").getByText(/^typed meanwhile/).waitFor();
}, { url: between.url, allowed: /ERR_|Failed to fetch|htmx:/ });

play("an end that came while nobody was there", async (you) => {
  await you.does("true");
  await you.live();
  const article = await you.run("echo begun; sleep 2; echo ended");
  await you.prints(article, /begun/);
  between.cut();
  await you.page.locator("#connection[data-state=lost]").waitFor();
  const other = await you.page.context().newPage();
  await other.goto(URL_OF_SERVER);
  await other.close();
  between.mend();
  assert.equal(await you.ended(article), "begun\nended\n");
}, { url: between.url, allowed: /ERR_|Failed to fetch/ });
