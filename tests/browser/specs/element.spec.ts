import { expect, test } from "../support/test.js";

/** A page of another site with two numbers and the script. */
function html(server: string): string {
  return `<!doctype html><html lang="en"><title>Elsewhere</title>
    <tide-mark feed="texts"></tide-mark> and again <tide-mark feed="texts"></tide-mark>
    <script type="module" src="${server}/tide-mark.js"></script></html>`;
}

test("an element on an allowed site is live, and all of them share one connection", async ({ page, demo, friend }) => {
  await demo.whole();
  friend.html = html(demo.url);
  let sockets = 0;
  page.on("websocket", () => (sockets += 1));
  await page.goto(friend.origin);
  const elements = page.locator("tide-mark");
  const before = (await demo.texts()).length;
  for (const element of await elements.all()) {
    await expect(element).toHaveAttribute("data-status", "live");
    await expect(element.locator("[part=number]")).toHaveText(before.toLocaleString("en"));
  }
  await demo.add("seen elsewhere");
  for (const element of await elements.all()) {
    await expect(element.locator("[part=number]")).toHaveText((before + 1).toLocaleString("en"));
  }
  expect(sockets).toBe(1);
});

test("an element on any other site says that it is refused, and why", async ({ page, demo, stranger }) => {
  await demo.whole();
  stranger.html = html(demo.url);
  await page.goto(stranger.origin);
  const element = page.locator("tide-mark").first();
  await expect(element).toHaveAttribute("data-status", "refused");
  await expect(element.locator("[part=note]")).toHaveText(/^refused: .*origin/i);
  await expect(element.locator("[part=number]")).toHaveText("–");
});

test("an element keeps its number when the replica that serves it dies", async ({ page, demo, friend }) => {
  await demo.whole();
  friend.html = html(demo.url);
  await page.goto(friend.origin);
  const element = page.locator("tide-mark").first();
  await expect(element).toHaveAttribute("data-status", "live");
  const number = await element.locator("[part=number]").textContent();
  for (const { pid } of await demo.all("dashboard")) process.kill(pid, "SIGKILL");
  await expect(element).toHaveAttribute("data-status", "reconnecting");
  await expect(element.locator("[part=number]")).toHaveText(number ?? "");
  await expect(element).toHaveAttribute("data-status", "live");
  await demo.add("counted after the loss");
  await expect(element.locator("[part=number]")).toHaveText((Number(number?.replaceAll(",", "")) + 1).toLocaleString("en"));
});
