import { Board } from "../support/board.js";
import { Nginx } from "../support/nginx.js";
import { expect, test as base } from "../support/test.js";

/** A proxy that lets no WebSocket through. */
const test = base.extend<{ nginx: Nginx }>({
  nginx: async ({ demo }, use, info) => {
    await demo.whole();
    const nginx = await Nginx.start(demo.url);
    await use(nginx);
    await nginx.stop();
    if (info.status !== info.expectedStatus) await info.attach("nginx", { body: nginx.log });
  },
});

test("behind a proxy that refuses Upgrade a page is live over SSE, and returns to a WebSocket when it can", async ({ page, demo, nginx }) => {
  const board = await Board.open(page, nginx.url);
  await expect(board.status).toHaveAttribute("data-transport", "sse");
  expect(board.sockets.length, "it tried three times before").toBeGreaterThanOrEqual(3);
  await expect(page.getByTestId("protocol")).toHaveAttribute("title", /server-sent events/);
  const before = await board.number();

  await board.forget();
  const saved = performance.now();
  await demo.add("seen over SSE");
  await board.shows(before + 1);
  // The proxy would hold back an answer that does not forbid it, until 4 KiB are full or a beat comes after 5 s.
  expect(performance.now() - saved, "nothing on the way holds it back").toBeLessThan(2_000);
  await board.save("saved over SSE");
  await board.shows(before + 2);
  expect((await board.seen()).status.map(({ value }) => value)).toEqual(["live"]);

  const first = await board.replica.innerText();
  process.kill((await demo.named(first)).pid, "SIGKILL");
  await expect(board.replica).not.toHaveText(first);
  await board.live();
  await expect(board.status).toHaveAttribute("data-transport", "sse");
  expect((await board.seen()).status.map(({ value }) => value)).toEqual(["live", "reconnecting", "live"]);
  await demo.add("stored after the loss");
  await board.shows(before + 3);

  await nginx.passUpgrades();
  await board.forget();
  await expect(board.status).toHaveAttribute("data-transport", "ws");
  await demo.add("seen over a WebSocket");
  await board.shows(before + 4);
  const { status, count } = await board.seen();
  expect(status.map(({ value }) => value), "the page never leaves live").toEqual(["live"]);
  expect(count.map(({ value }) => Number(value.replaceAll(",", "")))).toEqual([before + 3, before + 4]);
  await expect(board.handovers.first()).toHaveAttribute("data-planned", "true");
});

test("a replica that ends hands a page on SSE over, and the page never leaves live", async ({ page, demo, nginx }) => {
  const board = await Board.open(page, nginx.url);
  await expect(board.status).toHaveAttribute("data-transport", "sse");
  const before = await board.number();
  const first = await board.replica.innerText();
  await board.forget();
  process.kill((await demo.named(first)).pid, "SIGTERM");
  await expect(board.replica).not.toHaveText(first);
  await demo.add("stored after the move");
  await board.shows(before + 1);
  const { status } = await board.seen();
  expect(status.map(({ value }) => value).filter((value) => value !== "live" && value !== "moving")).toEqual([]);
  await expect(board.status).toHaveAttribute("data-transport", "sse");
  await expect(board.handovers.first()).toHaveAttribute("data-planned", "true");
});

test("an element works the same: live on an allowed site, refused with the reason on any other", async ({ page, demo, nginx, friend, stranger }) => {
  const html = `<!doctype html><html lang="en"><title>Elsewhere</title>
    <tide-mark feed="texts"></tide-mark><script type="module" src="${nginx.url}/tide-mark.js"></script></html>`;
  friend.html = stranger.html = html;
  const streams: string[] = [];
  page.on("request", (request) => {
    if (request.resourceType() === "eventsource") streams.push(request.url());
  });
  const element = page.locator("tide-mark");
  await page.goto(friend.origin);
  await expect(element).toHaveAttribute("data-status", "live");
  const before = (await demo.texts()).length;
  await demo.add("seen elsewhere over SSE");
  await expect(element.locator("[part=number]")).toHaveText((before + 1).toLocaleString("en"));
  expect(streams.splice(0)[0]).toMatch(`${nginx.url}/events?feeds=texts`);
  await page.goto(stranger.origin);
  await expect(element).toHaveAttribute("data-status", "refused");
  await expect(element.locator("[part=note]")).toHaveText(/^refused: .*origin/i);
  expect(streams[0], "and that it read there").toMatch(`${nginx.url}/events?feeds=texts`);
});
