import assert from "node:assert/strict";
import { PASSWORD, ask, play } from "./play.mjs";

const asProgram = (you, path, token) => fetch(new URL(path, you.url), { headers: { Authorization: `Bearer ${token}` } });

async function atAccount(you) {
  await you.page.getByRole("link", { name: you.user }).click();
  await you.page.getByRole("heading", { name: "Account" }).waitFor();
}

const focused = (you) => you.page.evaluate(() => document.activeElement.id);

play("a token: made, shown once, used, revoked", async (you) => {
  const { page } = you;
  await atAccount(you);
  const tokens = page.getByRole("region", { name: "API tokens" });
  await tokens.getByText("No program has one.").waitFor();
  await tokens.getByLabel("Name").fill("<b>nightly</b> backup");
  await tokens.getByLabel("Expires").selectOption("in 30 days");
  await tokens.getByRole("button", { name: "Create token" }).click();
  const secret = tokens.getByLabel("Copy it now");
  await secret.waitFor();
  assert.equal(await focused(you), "secret");
  await you.shot("account token made");
  const token = await secret.inputValue();
  assert.match(token, /^pgsh_[\w-]{43}$/);
  assert.equal((await (await asProgram(you, "/rpc/whoami", token)).json()).username, you.user);
  await page.reload();
  await tokens.getByText("<b>nightly</b> backup").waitFor();
  assert.ok(!(await page.content()).includes(token));
  await tokens.getByText(/by node from 127\.0\.0\.1/).waitFor();
  await you.shot("account");
  // By the keyboard: what follows the button that goes is not the top of the page.
  await tokens.getByRole("button", { name: "Revoke <b>nightly</b> backup" }).focus();
  await page.keyboard.press("Enter");
  await tokens.getByText("No program has one.").waitFor();
  assert.equal(await focused(you), "tokens");
  await page.locator("#spoken").filter({ hasText: "Revoked" }).waitFor({ state: "attached" });
  assert.equal((await asProgram(you, "/rpc/whoami", token)).status, 401);
});

async function elsewhere(you) {
  const context = await you.page.context().browser().newContext({ userAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0" });
  const page = await context.newPage();
  await page.goto(you.url);
  await page.getByLabel("User name").fill(you.user);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("textbox", { name: "Command" }).waitFor();
  return page;
}

const signedIn = (page) => page.reload().then(() => page.locator("#prompt, #sign-in").waitFor())
  .then(() => page.locator("#sign-in").isHidden());

play("signing out one browser, and all", async (you) => {
  const { page } = you;
  const firefox = await elsewhere(you);
  await atAccount(you);
  const places = page.getByRole("region", { name: "Where you are signed in" });
  assert.match(await places.getByRole("listitem").first().innerText(), /Chrome on Linux.*this one/);
  await you.shot("account two browsers");
  await places.getByRole("button", { name: "Sign out Firefox on Linux, 127.0.0.1" }).click();
  await places.getByText("Firefox").waitFor({ state: "detached" });
  assert.equal(await focused(you), "sign-ins");
  assert.equal(await signedIn(firefox), false);
  await firefox.context().close();
  const again = await elsewhere(you);
  await places.getByRole("button", { name: "Sign out everywhere" }).click();
  await page.locator("#sign-in").waitFor();
  assert.equal(await signedIn(again), false);
  await again.context().close();
  await you.signIn();
});

play("a new password", async (you) => {
  const { page } = you;
  const firefox = await elsewhere(you);
  await atAccount(you);
  const part = page.getByRole("region", { name: "Password" });
  const fill = async (old, one, two) => {
    await part.getByLabel("Old password").fill(old);
    await part.getByLabel("New password, 8").fill(one);
    await part.getByLabel("New password again").fill(two);
    await page.keyboard.press("Enter");
  };
  const told = (text) => page.getByRole("alert").filter({ hasText: text }).waitFor();
  await fill(PASSWORD, "battery staple", "battery stable");
  await told("The new password was typed in two different ways. Type it again, twice.");
  await fill("wrong horse", "battery staple", "battery staple");
  await told("The old password is wrong.");
  await you.shot("account wrong password");
  await fill(PASSWORD, "battery staple", "battery staple");
  await part.getByText("Your password is changed").waitFor();
  assert.equal(await page.getByRole("alert").isVisible(), false);
  assert.equal(await part.getByLabel("Old password").inputValue(), "");
  assert.equal(await focused(you), "password");
  await page.getByText("Firefox").waitFor({ state: "detached" });
  await you.shot("account password changed");
  assert.equal(await signedIn(firefox), false);
  await firefox.context().close();
  await page.getByRole("button", { name: "Sign out", exact: true }).click();
  await page.locator("#sign-in").waitFor();
  await you.signIn("battery staple");
  await you.prompt.waitFor();
  const kept = ask(`select count(*) from shell.user_sessions where user_id = (select id from shell.users where username = '${you.user}') and revoked_at is null`);
  assert.equal(kept, "1");
}, { allowed: /40[03] \(|Error Code 40[03]/ });
