import { once } from "node:events";
import { watchFrames } from "../support/frames.js";
import { expect, test } from "../support/test.js";

const COUNT = 100;

test.use({ serverCount: COUNT });

/** A server that falls silent is listed for 15 s more, and the list is read every 5 s. */
const GOES = 30_000;

/** What a frame may take, ms: a screen of 60 Hz wants the next one 16.7 ms after the last. */
const FRAME = 16;

/** Long enough for each server to tell some values, ms. */
const WATCH = 10_000;

test("each server has a card, in the order in which people count; all feeds come over one socket, and nothing is asked for", async ({ open }) => {
  const board = await open();
  await expect(board.serversThatAre("fresh")).toHaveCount(COUNT);
  await expect(board.page.getByTestId("summary")).toHaveText("100 servers");
  const names = await board.servers.evaluateAll((cards) => cards.map((card) => card.getAttribute("data-id")));
  expect(names).toEqual(Array.from({ length: COUNT }, (_, index) => `server-${index + 1}`));
  await expect(board.page.getByRole("article", { name: "server-7", exact: true })).toContainText(/CPU\s*\d+\s%.*Memory\s*\d+\s%\s*Disk\s*\d+\s%/s);
  const asked = board.requests.length;
  for (const id of ["server-1", "server-50", "server-100"]) {
    const cpu = board.server(id).getByTestId("cpu");
    await expect(cpu).not.toHaveText(await cpu.innerText());
  }
  expect(board.requests.slice(asked)).toEqual([]);
  expect(board.sent).toEqual([]);
  expect(board.sockets.map(({ searchParams }) => searchParams.get("feeds"))).toEqual(["texts,visitors,servers"]);
  expect((await board.seen()).violations).toEqual([]);
  expect(board.complaints).toEqual([]);
});

test("a server that comes has a card at once; one that goes looks stale, then gone, and leaves", async ({ open, demo }) => {
  test.setTimeout(120_000);
  const board = await open();
  await expect(board.servers).toHaveCount(COUNT);
  const generator = await demo.generate(COUNT + 1);
  try {
    const card = board.server("server-101");
    await expect(card).toHaveAttribute("data-state", "fresh");
    await expect(board.servers.last()).toHaveAttribute("data-id", "server-101");
    await expect(board.servers).toHaveCount(COUNT + 1);
    generator.kill("SIGKILL");
    await expect(card).toHaveAttribute("data-state", "stale");
    await expect(card).toContainText(/as of \d+ s ago/);
    await expect(board.page.getByTestId("summary")).toHaveText("101 servers, 1 stale");
    await expect(card).toHaveAttribute("data-state", "gone", { timeout: GOES });
    await expect(card).toHaveCount(0);
    await expect(board.serversThatAre("fresh")).toHaveCount(COUNT);
  } finally {
    if (generator.exitCode === null && generator.signalCode === null) {
      generator.kill("SIGKILL");
      await once(generator, "exit");
    }
  }
});

test("while the generators stand still all values say how old they are, and none is lost", async ({ open, demo }) => {
  const board = await open();
  await expect(board.serversThatAre("fresh")).toHaveCount(COUNT);
  const generators = await demo.all("metric-generator");
  try {
    for (const { pid } of generators) process.kill(pid, "SIGSTOP");
    await expect(board.serversThatAre("stale")).toHaveCount(COUNT);
    await expect(board.server("server-1")).toContainText(/as of \d+ s ago/);
    await expect(board.server("server-1").getByTestId("cpu")).toHaveText(/^\d+\s%$/);
  } finally {
    for (const { pid } of generators) process.kill(pid, "SIGCONT");
  }
  await expect(board.serversThatAre("fresh")).toHaveCount(COUNT);
});

test("the filter narrows the cards while it is typed, keeps the focus, and Escape clears it", async ({ open }) => {
  const board = await open();
  await expect(board.servers).toHaveCount(COUNT);
  const filter = board.page.getByRole("searchbox", { name: "Filter" });
  const found = board.page.getByTestId("found");
  await filter.click();
  await board.page.keyboard.type("SERVER-9");
  await expect(found).toHaveText("11 of 100");
  await expect(board.servers).toHaveCount(11);
  const cpu = board.server("server-9").getByTestId("cpu");
  await expect(cpu).not.toHaveText(await cpu.innerText());
  await expect(filter).toBeFocused();
  await board.page.keyboard.type("x");
  await expect(board.servers).toHaveCount(0);
  await expect(found).toHaveText("0 of 100");
  await board.page.keyboard.press("Escape");
  await expect(filter).toHaveValue("");
  await expect(filter).toBeFocused();
  await expect(board.servers).toHaveCount(COUNT);
});

test("lines are made only for the cards in sight", async ({ open }) => {
  const board = await open();
  const lines = board.servers.locator("canvas");
  await board.server("server-1").scrollIntoViewIfNeeded();
  await expect(board.server("server-1").locator("canvas")).toHaveCount(1);
  expect(await lines.count()).toBeLessThan(COUNT / 2);
  await board.server("server-100").scrollIntoViewIfNeeded();
  await expect(board.server("server-100").locator("canvas")).toHaveCount(1);
});

for (const [path, width, height] of [
  ["/", 1280, 800],
  ["/?wall", 1920, 1080],
] as const) {
  test(`with ${COUNT} servers 95 of 100 frames of ${path} take ${FRAME} ms of work or less`, async ({ browser, open }, info) => {
    const board = await open(path);
    await board.page.setViewportSize({ width, height });
    await expect(board.serversThatAre("fresh")).toHaveCount(COUNT);
    await board.page.evaluate(() => document.querySelector("[data-testid=servers]")?.scrollIntoView());
    const frames = await watchFrames(browser, board.page, WATCH);
    info.annotations.push({ type: "frames, ms", description: JSON.stringify(frames) });
    expect(frames.workP95).toBeLessThanOrEqual(FRAME);
  });
}

test("a wall shows all servers without scrolling", async ({ open }) => {
  const board = await open("/?wall");
  await board.page.setViewportSize({ width: 1920, height: 1080 });
  await expect(board.servers).toHaveCount(COUNT);
  for (const id of ["server-1", "server-8", "server-100"]) await expect(board.server(id)).toBeInViewport({ ratio: 1 });
  const scrolls = await board.page.evaluate(() => document.documentElement.scrollHeight > window.innerHeight);
  expect(scrolls).toBe(false);
});
