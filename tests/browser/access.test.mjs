import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { play } from "./play.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

const tabTo = async (page, name) => {
  for (let times = 0; times < 60; times++) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent.trim());
    if (focused === name) return;
  }
  assert.fail(`no Tab reaches ${name}`);
};

play("the keyboard alone", async (you) => {
  const { page } = you;
  await page.keyboard.type(you.user);
  await page.keyboard.press("Tab");
  await page.keyboard.type("correct horse battery");
  await page.keyboard.press("Enter");
  await you.prompt.waitFor();
  const focused = () => page.evaluate(() => document.activeElement.id);
  assert.equal(await focused(), "command");
  await page.keyboard.type("echo by key");
  await page.keyboard.press("Enter");
  const first = page.locator(".command").first();
  await first.waitFor();
  assert.equal(await you.ended(first), "by key\n");
  assert.equal(await you.prompt.inputValue(), "");
  assert.equal(await focused(), "command");
  // From the top: skip link, views, session, then what can be done with a command.
  await page.evaluate(() => document.activeElement.blur());
  await tabTo(page, "Skip to content");
  await you.shot("keyboard skip link");
  await page.keyboard.press("Enter");
  await tabTo(page, "fork from here");
  assert.notEqual(await page.locator(".actions").first().evaluate((e) => getComputedStyle(e).opacity), "0");
  await you.shot("keyboard fork");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/session\//);
  await page.getByText("Nothing has run here yet.").waitFor();
  await tabTo(page, "Search the history (Ctrl R)");
}, { signIn: false });

play("landmarks and what is spoken", async (you) => {
  const { page } = you;
  await you.does("true");
  for (const role of ["banner", "main", "log"]) assert.equal(await page.getByRole(role).count(), 1, role);
  for (const name of ["Views", "Open sessions"]) await page.getByRole("navigation", { name }).waitFor();
  await page.getByRole("form", { name: "Prompt" }).waitFor();
  await you.ended(await you.run("echo spoken; exit 4"));
  await page.locator("#spoken").filter({ hasText: /^echo spoken; exit 4: exit 4, / }).waitFor({ state: "attached" });
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input:not([type=hidden]), textarea, select, a")]
    .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.title)).map((e) => e.outerHTML));
  assert.deepEqual(nameless, []);
});

play("a phone", async (you) => {
  const { page } = you;
  await you.does("cd /usr && ls -la --color=always");
  const long = await you.run("echo a_rather_long_line_without_any_space_in_it_that_goes_on_and_on_and_on_until_it_must_be_broken; sleep 600");
  await you.prints(long, /broken/);
  await you.shot("phone running");
  const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  assert.ok(await fits());
  const run = await page.getByRole("button", { name: "Run", exact: true }).boundingBox();
  assert.ok(run.x + run.width <= 375 && run.height >= 36);
  await page.getByRole("button", { name: "Cancel the running command" }).tap();
  await you.ended(long, "failed");
  await you.shot("phone");
  for (const view of ["Sessions", "Audit", "Usage", "Account"]) {
    await page.getByRole("link", { name: view === "Account" ? you.user : view, exact: true }).tap();
    await page.getByRole("heading", { name: view, exact: true }).waitFor();
    await you.shot(`phone ${view}`);
    assert.ok(await fits(), view);
  }
  await page.getByRole("link", { name: "Sessions", exact: true }).tap();
  await page.getByRole("button", { name: "Replay" }).tap();
  await page.getByText(/^1 of 2 repeated/).waitFor();
  await you.shot("phone replay");
  assert.ok(await fits(), "Replay");
}, { viewport: { width: 375, height: 700 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });

const ground = (you) => you.page.evaluate(() => getComputedStyle(document.body).backgroundColor);

for (const colorScheme of ["light", "dark"]) {
  play(`${colorScheme}, and the switch`, async (you) => {
    await you.does(String.raw`ls -la --color=always /; printf '\e[31mred \e[32mgreen \e[33myellow \e[34mblue \e[35mmagenta \e[36mcyan\e[0m\n'`);
    await you.shot(colorScheme);
    const bySystem = await ground(you);
    const button = you.page.locator("#theme");
    while ((await button.getAttribute("aria-label")) !== `Colours: ${colorScheme === "dark" ? "light" : "dark"}`) await button.click();
    const chosen = await ground(you);
    assert.notEqual(chosen, bySystem);
    await you.page.reload();
    assert.equal(await ground(you), chosen);
  }, { colorScheme });
}

// What axe finds wrong with what is on the page.
async function wrong(page) {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];
  const { violations } = await page.evaluate((runOnly) => axe.run(document, { runOnly }), tags);
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ").slice(0, 300)}`);
}

for (const colorScheme of ["light", "dark"]) {
  play(`nothing that axe finds wrong, ${colorScheme}`, async (you) => {
    const { page } = you;
    const check = async (state) => assert.deepEqual(await wrong(page), [], state);
    await check("sign in");
    await you.signIn();
    await check("empty");
    await you.does(String.raw`for c in 1 2 3 4 5 6; do printf '\e[3%dmcolour %d\e[0m \e[9%dmbright\e[0m\n' $c $c $c; done; false`);
    await you.live();
    await check("terminal");
    await page.keyboard.press("Control+r");
    await page.getByRole("option").first().waitFor();
    await check("search");
    await page.keyboard.press("Escape");
    for (const view of ["Audit", "Usage", "Account", "Sessions"]) {
      await page.getByRole("link", { name: view === "Account" ? you.user : view, exact: true }).click();
      await page.getByRole("heading", { name: view, exact: true }).waitFor();
      await check(view);
    }
    await page.getByRole("button", { name: "Rename" }).click();
    await check("rename");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Replay" }).click();
    await page.locator("#verdict").getByText("The command did the same.").waitFor();
    await page.locator("summary").click();
    await check("replay");
  }, { colorScheme, signIn: false, script: AXE });
}
