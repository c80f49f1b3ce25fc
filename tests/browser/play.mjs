// A browser, a user for each test, and words for what people do. Nothing here sleeps: waits end with an event, or fail
// after PATIENCE.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { chromium } from "playwright-core";

export const PATIENCE = 60_000;
export const URL_OF_SERVER = process.env.PG_SHELL_URL;
const PSQL = JSON.parse(process.env.PG_SHELL_PSQL ?? '["psql"]');
const SHOTS = process.env.PG_SHELL_ARTIFACTS ?? "../../target/screenshots";
export const PASSWORD = "correct horse battery";

let browser;
after(() => browser?.close());

async function started() {
  browser ??= await chromium.launch({
    executablePath: process.env.PG_SHELL_CHROMIUM ?? "/usr/bin/chromium",
    // Its own sandbox does not start as root, which is what makes the users of the tests.
    args: process.getuid() === 0 ? ["--no-sandbox"] : [],
  });
  return browser;
}

// What the database says, as the superuser.
export function ask(sql) {
  return execFileSync(PSQL[0], [...PSQL.slice(1), "-qAtc", sql], { encoding: "utf8" }).trim();
}

// A test with a page of its own, at which a user of its own has signed in. What the browser complains of fails it,
// but for what `allowed` matches.
export function play(name, story, { url = URL_OF_SERVER, allowed = /^$/, signIn = true, script, ...options } = {}) {
  test(name, async () => {
    const context = await (await started()).newContext({ viewport: { width: 1200, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    if (script) await context.addInitScript({ path: script });
    const page = await context.newPage();
    const complaints = [];
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("dialog", (dialog) => complaints.push(`a dialog: ${dialog.message()}`));
    const user = `ada-${Date.now().toString(36).slice(-5)}`;
    ask(`with u as (insert into shell.users (username) values ('${user}') returning id)
      select shell.set_password(id, '${PASSWORD}') from u`);
    const you = new You(page, user, url);
    try {
      await page.goto(url);
      if (signIn) await you.signIn();
      await story(you);
      assert.deepEqual(complaints.filter((text) => !allowed.test(text)), []);
    } catch (error) {
      await you.shot(`failed ${name}`).catch(() => {});
      throw error;
    } finally {
      await context.close();
    }
  });
}

// Who sits at the page.
class You {
  constructor(page, user, url) {
    Object.assign(this, { page, user, url });
    this.prompt = page.getByRole("textbox", { name: "Command" });
    this.log = page.getByRole("log");
  }

  async signIn(password = PASSWORD) {
    await this.page.getByLabel("User name").fill(this.user);
    await this.page.getByLabel("Password").fill(password);
    await this.page.getByRole("button", { name: "Sign in" }).click();
    if (password === PASSWORD) await this.prompt.waitFor();
  }

  // Types a command, and gives its article. The first one of all makes the session, and loads the page of that.
  async run(command) {
    // Enter before the page's scripts are there is a line's end.
    await this.page.locator("#connection:not([data-state=connecting])").waitFor();
    const before = await this.lastId();
    await this.prompt.fill(command);
    await this.prompt.press("Enter");
    const id = await this.page.waitForFunction((last) => {
      const id = document.querySelector(".command:last-of-type")?.dataset.id;
      return id && Number(id) > last && id;
    }, before);
    return this.page.locator(`#c${await id.jsonValue()}`);
  }

  async lastId() {
    return this.page.evaluate(() => Number(document.querySelector(".command:last-of-type")?.dataset.id ?? 0));
  }

  // Waits for its end; gives its output.
  async ended(article, status = "done|failed") {
    const id = await article.getAttribute("id");
    await this.page.waitForFunction(([id, wanted]) =>
      new RegExp(`^(${wanted})$`).test(document.getElementById(id)?.dataset.status), [id, status]);
    return article.locator(".output").textContent();
  }

  // Runs to the end; gives the output.
  async does(command) {
    return this.ended(await this.run(command));
  }

  // Waits until the output matches.
  async prints(article, pattern) {
    const id = await article.getAttribute("id");
    await this.page.waitForFunction(([id, source]) =>
      new RegExp(source).test(document.querySelector(`#${id} .output`)?.textContent), [id, pattern.source]);
  }

  async live() {
    await this.page.locator("#connection[data-state=live]").waitFor();
  }

  async state() {
    return (await this.page.locator("#state").innerText()).replace(/\s+/g, " ");
  }

  // Kept for people to look at.
  async shot(name) {
    mkdirSync(SHOTS, { recursive: true });
    await this.page.screenshot({ path: join(SHOTS, `${name.replaceAll(/[^\w-]+/g, "-")}.png`) });
  }
}
