import { expect, test } from "../support/test.js";

test("SIGTERM to an app while saving: every text is stored once", async ({ open, demo }) => {
  const board = await open();
  const [app] = await demo.all("app");
  if (!app) throw new Error("no app");
  const texts: string[] = [];
  process.kill(app.pid, "SIGTERM");
  do {
    const text = `saved while an app leaves, ${texts.length}`;
    texts.push(text);
    await board.save(text);
  } while ((await demo.all("app")).some(({ name }) => name === app.name));
  const stored = (await demo.texts()).map(({ text }) => text);
  expect(texts.map((text) => stored.filter((other) => other === text).length)).toEqual(texts.map(() => 1));
  await expect(board.saveError).toHaveCount(0);
});

test("SIGKILL to every app while a save is in flight: the page tries again, and one row is stored", async ({ open, demo }) => {
  const board = await open();
  const before = await board.number();
  const apps = await demo.all("app");
  // Stopped first: so the request is surely in flight when they die.
  for (const { pid } of apps) process.kill(pid, "SIGSTOP");
  await board.text.fill("survives its app");
  const sent = board.page.waitForRequest("**/save");
  await board.saveButton.click();
  await sent;
  await expect(board.saveButton).toHaveText("Saving…");
  for (const { pid } of apps) process.kill(pid, "SIGKILL");
  await expect(board.saveButton).toHaveText("Saving… (retrying)");
  await expect(board.text).toHaveValue("survives its app");
  await expect(board.text).toHaveValue("");
  await board.shows(before + 1);
  expect(await demo.stored("survives its app")).toBe(1);
  expect(new Set(board.savedIds()).size).toBe(1);
});

test("a retry can be cancelled, and the text is kept", async ({ open, demo }) => {
  const board = await open();
  await board.page.route("**/save", (route) => route.abort());
  await board.text.fill("not now");
  await board.saveButton.click();
  await board.page.getByTestId("cancel").click();
  await expect(board.saveButton).toHaveText("Save");
  await expect(board.text).toHaveValue("not now");
  await expect(board.text).toBeFocused();
  await board.page.unroute("**/save");
  await board.saveButton.click();
  await expect(board.text).toHaveValue("");
  expect(await demo.stored("not now")).toBe(1);
  expect(new Set(board.savedIds()).size, "the same text keeps its id").toBe(1);
});

for (const [what, text, message] of [
  ["A blank text", "  \n ", "The text is empty."],
  ["An over-long text", "ü".repeat(10_001), "The text has more than 10,000 characters."],
  ["A text of more than 64 KiB", "x".repeat(70_000), "The body is larger than 64 KiB."],
  ["A text with a NUL character", "a\0b", "The text contains a NUL character."],
] as const) {
  test(`${what} is refused with a message, and kept`, async ({ open, demo }) => {
    const board = await open();
    const stored = (await demo.texts()).length;
    await board.text.fill(text);
    await board.saveButton.click();
    await expect(board.saveError).toHaveText(message);
    await expect(board.saveError).toHaveRole("alert");
    await expect(board.text).toHaveValue(text);
    await expect(board.text).toHaveAccessibleDescription(new RegExp(`^${message}`));
    expect((await demo.texts()).length).toBe(stored);
    await board.text.press("End");
    await board.text.press("Backspace");
    await expect(board.saveError).toHaveCount(0);
  });
}

test("the longest text is taken, and the counter tells how long it is", async ({ open, demo }) => {
  const board = await open();
  const text = "🌊".repeat(10_000);
  await board.text.fill(text);
  await expect(board.page.getByText("10,000 of 10,000 characters")).toBeVisible();
  await board.saveButton.click();
  await expect(board.text).toHaveValue("");
  expect(await demo.stored(text)).toBe(1);
});

test("the keyboard is enough, and the focus stays where it is", async ({ open, demo }) => {
  const board = await open();
  const before = await board.number();
  await board.page.keyboard.press("Tab");
  await expect(board.text).toBeFocused();
  await board.page.keyboard.type("typed");
  await board.page.keyboard.press("Enter");
  await board.page.keyboard.type("in two lines");
  await board.page.keyboard.press("Control+Enter");
  await expect(board.text).toHaveValue("");
  await expect(board.text).toBeFocused();
  await board.page.keyboard.type("with the button");
  await board.page.keyboard.press("Tab");
  await expect(board.saveButton).toBeFocused();
  await board.page.keyboard.press("Enter");
  await board.shows(before + 2);
  await expect(board.text).toHaveValue("");
  await expect(board.saveButton).toBeFocused();
  expect(await demo.stored("typed\nin two lines")).toBe(1);
  expect(await demo.stored("with the button")).toBe(1);
});
