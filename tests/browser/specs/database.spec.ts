import { expect, test } from "../support/test.js";

test("Postgres stops and starts: the page says how old it is, a save waits, and both catch up", async ({ open, demo }) => {
  const board = await open();
  const before = await board.number();
  await board.forget();
  const outage = await demo.loseDatabase();
  await expect(board.age).toHaveText(/as of \d+ s ago/);
  await expect(board.status).toContainText("database away");
  const age = await board.age.innerText();
  await board.shows(before);

  await board.text.fill("saved while the database is away");
  await board.saveButton.click();
  await expect(board.saveButton).toHaveText("Saving… (retrying)");
  await expect(board.page.getByTestId("save-trouble")).toContainText("The database is away.");
  await expect(board.text).toHaveValue("saved while the database is away");
  await expect(board.age, "the age grows").not.toHaveText(age);

  await outage.end();
  await board.shows(before + 1);
  await expect(board.age).toHaveCount(0);
  await expect(board.status).not.toContainText("database away");
  await expect(board.text).toHaveValue("");
  expect(await demo.stored("saved while the database is away")).toBe(1);
  const ids = board.savedIds();
  expect(ids.length).toBeGreaterThan(1);
  expect(new Set(ids).size, "each attempt has the same id").toBe(1);
  const { status } = await board.seen();
  expect(status.map(({ value }) => value), "the connection itself never breaks").toEqual(["live"]);
});

test("a page that is opened while the database is away says so, and its list comes when asked for", async ({ open, demo }) => {
  await demo.add("to be found again");
  const number = (await demo.texts()).length;
  await demo.everyDashboardKnows(number);
  const outage = await demo.loseDatabase();
  const board = await open();
  await board.shows(number);
  await expect(board.age).toHaveText(/as of \d+ s ago/);
  await expect(board.page.getByTestId("list-error")).toContainText("The database is away. The list cannot be shown now.");
  await outage.end();
  await expect(board.age).toHaveCount(0);
  await board.page.getByTestId("list-retry").click();
  await expect(board.items.filter({ hasText: "to be found again" })).toHaveCount(1);
  await expect(board.page.getByTestId("list-error")).toHaveCount(0);
});
