import assert from "node:assert/strict";
import { play } from "./play.mjs";

play("what another page could send changes nothing", async (you) => {
  await you.does("true");
  const statuses = await you.page.evaluate(async () => {
    const paths = ["/page/run", "/page/session", "/page/again/1", "/page/fork/1", "/page/cancel/1", "/page/replay/x", "/page/rename/x", "/page/token", "/page/revoke/token/x",
      "/page/password", "/page/sign-out-everywhere", "/sign-out", "/rpc/submit_command"];
    const send = (path) => fetch(path, { method: "POST", body: new URLSearchParams({ command: "echo forged" }) });
    return Promise.all(paths.map(async (path) => (await send(path)).status));
  });
  assert.deepEqual(new Set(statuses), new Set([403]));
  await you.page.reload();
  assert.equal(await you.page.locator(".command").count(), 1);
}, { allowed: /403 \(Forbidden\)/ });
