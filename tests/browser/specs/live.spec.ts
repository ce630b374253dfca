import { expect, test } from "../support/test.js";

test("a text saved in one page changes the count in both; nobody asks for it", async ({ open, demo }) => {
  const [writer, reader] = [await open(), await open()];
  const before = await writer.number();
  const asked = { writer: writer.requests.length, reader: reader.requests.length };
  await writer.save("seen by everybody");
  await writer.shows(before + 1);
  await reader.shows(before + 1);
  // One push more, so that a request that followed the first would have been made by now.
  await demo.add("and one more");
  await writer.shows(before + 2);
  await reader.shows(before + 2);
  expect(writer.requests.slice(asked.writer).map((request) => request.method())).toEqual(["POST"]);
  expect(reader.requests.slice(asked.reader)).toEqual([]);
  expect([...writer.sent, ...reader.sent], "a page sends no message").toEqual([]);
  await expect(writer.items.first()).toContainText("seen by everybody");
});

test("others' texts are offered, and loaded when asked for", async ({ open, demo }) => {
  const board = await open();
  const asked = board.requests.length;
  await demo.add("offer one", "offer two", "offer three");
  await expect(board.newTexts).toHaveText("3 new texts");
  await board.save("my own is not offered");
  await expect(board.newTexts).toHaveText("3 new texts");
  expect(board.requests.slice(asked).map((request) => request.method())).toEqual(["POST"]);
  await board.newTexts.click();
  await expect(board.newTexts).toHaveCount(0);
  for (const text of ["offer one", "offer two", "offer three", "my own is not offered"]) {
    await expect(board.items.filter({ hasText: text })).toHaveCount(1);
  }
  expect(board.requests.slice(asked).map((request) => request.method())).toEqual(["POST", "GET"]);
});

test("older texts are loaded page by page, each once", async ({ open, demo }) => {
  await demo.add(...Array.from({ length: 60 }, (_, index) => `page filler ${index}`));
  const stored = (await demo.texts()).length;
  const board = await open();
  await expect(board.items).toHaveCount(50);
  while (await board.loadMore.isVisible()) {
    const shown = await board.items.count();
    await board.loadMore.click();
    await expect.poll(() => board.items.count()).toBeGreaterThan(shown);
  }
  await expect(board.items).toHaveCount(stored);
  const ids = await board.items.evaluateAll((items) => items.map((item) => item.getAttribute("data-id")));
  expect(new Set(ids).size).toBe(stored);
});

test("going away and coming back finds the page live", async ({ open, demo }) => {
  const board = await open();
  const before = await board.number();
  await board.page.goto(`${demo.url}/favicon.svg`);
  await demo.add("stored meanwhile");
  await board.page.goBack();
  await board.live();
  await board.shows(before + 1);
});

test("a wall shows the number and its status, and asks for nothing", async ({ open, demo }) => {
  const board = await open("/?wall");
  const before = await board.number();
  await demo.add("seen on the wall");
  await board.shows(before + 1);
  await expect(board.text).toHaveCount(0);
  expect(board.requests).toEqual([]);
});
