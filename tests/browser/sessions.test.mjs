import assert from "node:assert/strict";
import { ask, play } from "./play.mjs";

play("two tabs", async (you) => {
  await you.does("cd /usr; name=first");
  await you.page.getByRole("button", { name: "New session" }).click();
  await you.page.waitForURL(/session/);
  await you.page.getByRole("link", { name: "session 2" }).waitFor();
  assert.equal(await you.does('cd /etc; echo "${name-none}"'), "none\n");
  assert.match(await you.state(), /session 2 \/etc exit 0$/);
  await you.shot("two tabs");
  await you.page.getByRole("navigation", { name: "Open sessions" }).getByRole("link", { name: "main" }).click();
  await you.page.getByText("cd /usr; name=first").first().waitFor();
  assert.equal(await you.does('echo "$name in $PWD"'), "first in /usr\n");
});

play("a second window shows what the first one runs", async (you) => {
  await you.does("true");
  const other = await you.page.context().newPage();
  await other.goto(you.page.url());
  await other.locator("#connection[data-state=live]").waitFor();
  const article = await you.run("echo for both; sleep 600");
  await other.locator(`#${await article.getAttribute("id")}`).getByText(/^for both/).waitFor();
  await other.keyboard.press("Control+c");
  await you.ended(article, "failed");
  assert.equal(await other.locator(".command").count(), 2);
});

play("many commands from elsewhere, at once", async (you) => {
  await you.does("true");
  await you.live();
  const wanted = ask(`select shell.submit_command(u.id, 'echo ' || i) from shell.users as u, generate_series(1, 15) as i
    where u.username = '${you.user}'`).split("\n");
  const last = you.page.locator(`#c${wanted.at(-1)}`);
  await last.waitFor();
  for (const id of wanted) await you.ended(you.page.locator(`#c${id}`), "done");
  const shown = await you.page.locator(".command").evaluateAll((all) => all.map((article) => article.dataset.id));
  assert.deepEqual(shown.slice(1), wanted);
});

play("forks and their tree", async (you) => {
  await you.does("value=1; cd /tmp");
  const second = await you.run("value=2; cd /usr");
  await you.ended(second);
  await you.does("value=3");
  const fork = async (name) => {
    const from = you.page.url();
    await second.hover();
    await second.getByRole("button", { name, exact: true }).click();
    await you.page.waitForURL((url) => url.href !== from && url.pathname.startsWith("/session/"));
    await you.page.getByText("Nothing has run here yet.").waitFor();
    return you.does('echo "$value $PWD"');
  };
  assert.equal(await fork("fork from here"), "1 /tmp\n");
  await you.page.getByRole("navigation", { name: "Open sessions" }).getByRole("link", { name: "main", exact: true }).click();
  await second.waitFor();
  assert.equal(await fork("fork after"), "2 /usr\n");
  await you.shot("fork");
  await you.page.getByRole("link", { name: "Sessions" }).click();
  const tree = you.page.locator(".tree");
  await tree.waitFor();
  assert.equal(await tree.locator("ul li").filter({ hasText: "from command" }).count(), 2);
  await you.shot("session tree");
  await tree.getByRole("button", { name: "Replay" }).first().click();
  await you.page.waitForURL(/\/replay\//);
  await you.page.locator("#verdict").getByText("All 3 did the same.").waitFor();
});

play("a session that is not there", async (you) => {
  for (const path of ["/session/00000000-0000-0000-0000-000000000000", "/session/x", "/play/x"]) {
    await you.page.goto(new URL(path, you.url).href);
    await you.page.getByRole("heading", { name: "There is no such session" }).waitFor();
  }
  await you.shot("not found");
  await you.page.getByRole("link", { name: "To the terminal" }).click();
  await you.prompt.waitFor();
}, { allowed: /404 \(Not Found\)/ });
