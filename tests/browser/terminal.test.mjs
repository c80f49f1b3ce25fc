import assert from "node:assert/strict";
import { play } from "./play.mjs";

play("signing in and out", async (you) => {
  await you.shot("sign in");
  await you.signIn("wrong horse battery");
  const problem = you.page.getByRole("alert").filter({ hasText: "Wrong user name or password" });
  await problem.waitFor();
  await you.shot("sign in refused");
  await you.signIn();
  assert.equal(await you.state(), `${you.user} main ~`);
  await you.shot("empty");
  await you.page.getByRole("button", { name: "Sign out" }).click();
  await you.page.getByLabel("Password").waitFor();
}, { signIn: false, allowed: /401 \(Unauthorized\)/ });

play("commands, folder and exit code", async (you) => {
  assert.equal(await you.does("echo hello; cd /usr/lib"), "hello\n");
  await you.page.getByText(/^\/usr\/lib$/).last().waitFor();
  assert.equal(await you.state(), `${you.user} main /usr/lib exit 0`);
  const failed = await you.run("echo no >&2; exit 3");
  assert.equal(await you.ended(failed, "failed"), "no\n");
  assert.match(await failed.locator(".facts").innerText(), /exit 3/);
  assert.match(await failed.locator(".duration").innerText(), /^\d.* m?s$/);
  assert.ok(Date.parse(await failed.locator("time").getAttribute("datetime")));
  assert.equal(await you.state(), `${you.user} main /usr/lib exit 3`);
  await failed.hover();
  await you.shot("failed command");
  assert.equal(await you.does("printf 'two\nlines\n'"), "two\nlines\n");
});

play("colours and a progress bar", async (you) => {
  const coloured = await you.run(String.raw`for c in 1 2 3 4 5 6; do printf '\e[3%dmcolour %d\e[0m \e[1;9%dmbright\e[0m \e[4%dm ground \e[0m \e[4munder\e[0m \e[7mreverse\e[0m\n' $c $c $c $c; done; for c in {17..231..6}; do printf '\e[38;5;%dm%4d\e[0m' $c $c; done; echo`);
  await you.ended(coloured);
  const red = coloured.locator(".fg1").first();
  assert.equal(await red.textContent(), "colour 1");
  const colour = (locator) => locator.evaluate((element) => getComputedStyle(element).color);
  assert.notEqual(await colour(red), await colour(coloured.locator(".output")));
  assert.notEqual(await colour(coloured.locator(".fg17").first()), await colour(coloured.locator(".fg23").first()));

  const bar = await you.run(String.raw`for i in $(seq 0 4 100); do printf '\r\e[32m%-25s\e[0m %3d%%' "$(printf '#%.0s' $(seq 0 4 $i))" $i; sleep 0.1; done; echo; echo over`);
  const seen = new Set();
  for (const part of ["[1-4]\\d%", "[5-7]\\d%", "[89]\\d%"]) {
    await you.prints(bar, new RegExp(part));
    seen.add(await bar.locator(".output").textContent());
    if (seen.size === 2) await you.shot("progress bar");
    // One line that changes, not a line for each change.
    if (await bar.getAttribute("data-status") === "running") assert.equal(await bar.locator(".row").count(), 1);
  }
  assert.ok(seen.size >= 2, [...seen].join());
  assert.match(await you.ended(bar), /^#{26} 100%\nover\n$/);
  await you.shot("colours");
});

play("cancelling by key and by button", async (you) => {
  const first = await you.run("echo begun; sleep 600");
  await you.prints(first, /begun/);
  await you.page.keyboard.press("Control+c");
  assert.equal(await you.ended(first, "failed"), "begun\n");
  assert.match(await first.innerText(), /cancelled/);
  await you.shot("cancelled");
  const second = await you.run("echo again; sleep 600");
  await you.prints(second, /again/);
  await you.page.getByRole("button", { name: "Cancel the running command" }).click();
  await you.ended(second, "failed");
  assert.equal(await you.page.locator("#cancel").isVisible(), false);
});

play("output never becomes markup", async (you) => {
  const nasty = `<script>alert(1)</script><img src=x onerror=alert(2)><b id=injected>b</b></pre></article>&lt;`;
  const article = await you.run(`echo '${nasty}'; printf '\\e]0;<script>alert(3)</script>\\a\\e[31m<i>red</i>\\e[0m'`);
  const streamed = await you.run(`echo '${nasty}'; sleep 600`);
  assert.equal(await you.ended(article), `${nasty}\n<i>red</i>\n`);
  await you.prints(streamed, /injected/);
  assert.equal(await you.page.locator("#log :is(script, img, b, i, #injected)").count(), 0);
  assert.equal(await article.locator(".line").textContent().then((text) => text.startsWith("echo '<script>")), true);
  await you.shot("markup in output");
  await you.page.reload();
  await you.prints(streamed, /injected/);
  assert.equal(await you.page.locator("#log :is(script, img, b, i, #injected)").count(), 0);
  await you.page.keyboard.press("Control+c");
  await you.ended(streamed);
});

play("a reload in the middle of a run", async (you) => {
  const article = await you.run("echo before; while [ ! -e /tmp/never ]; do echo tick; sleep 0.2; done");
  await you.prints(article, /tick\ntick/);
  await you.prompt.fill("a draft");
  await you.page.reload();
  await you.prints(article, /^before\ntick\ntick/);
  const ticks = (await article.locator(".output").textContent()).length;
  await you.prints(article, new RegExp(`^[^]{${ticks + 1}}`));
  assert.equal(await you.prompt.inputValue(), "a draft");
  await you.shot("reloaded while running");
  await you.prompt.press("Control+c");
  assert.match(await you.ended(article), /^before\n(tick\n)+$/);
});

play("much output", async (you) => {
  const article = await you.run("seq 1 50000");
  assert.match(await you.ended(article), /\n50000\n$/);
  await article.getByRole("button", { name: "Show all of the output" }).click();
  await you.prints(article, /^1\n2\n/);
  assert.equal((await article.locator(".output").textContent()).split("\n").length, 50001);
});

play("running again, and several in turn", async (you) => {
  const slow = await you.run("sleep 1; echo slow");
  const next = await you.run("echo next");
  assert.equal(await next.getAttribute("data-status"), "pending");
  await you.shot("waiting its turn");
  assert.equal(await you.ended(slow), "slow\n");
  assert.equal(await you.ended(next), "next\n");
  const last = await you.lastId();
  await next.hover();
  await next.getByRole("button", { name: "run again" }).click();
  const again = you.page.locator(`.command:last-of-type:not(#c${last})`);
  await again.waitFor();
  assert.equal(await you.ended(again), "next\n");
});
