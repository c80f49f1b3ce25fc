import assert from "node:assert/strict";
import { play } from "./play.mjs";

const MOST = 150 * 1024;

play("the page's weight, and one round trip", async (you) => {
  await you.does("true");
  const fetched = [];
  you.page.on("response", (response) => fetched.push(response));
  await you.page.goto(you.page.url());
  await you.live();
  const page = await fetched[0].text();
  let weight = 0;
  for (const response of fetched) {
    const { pathname, origin } = new URL(response.url());
    assert.equal(origin, new URL(you.url).origin);
    if (pathname.startsWith("/events/")) continue;
    weight += (await response.body()).length;
    // Everything is named by the page itself: nothing waits for another file to name it.
    assert.ok(response === fetched[0] || page.includes(pathname), pathname);
  }
  console.log(`${weight} bytes in ${fetched.length} answers`);
  assert.ok(weight < MOST, `${weight} bytes`);
  const policy = fetched[0].headers()["content-security-policy"];
  assert.match(policy, /script-src 'self';/);
  assert.doesNotMatch(policy, /unsafe/);
  assert.doesNotMatch(page, /<script(?![^>]* src=)|<style|\sstyle=|\son\w+=/);
});
