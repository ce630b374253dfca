import { expect, test } from "../support/test.js";

test("a visitor changes the number on every page, and a screen on a wall is none", async ({ open }) => {
  const first = await open();
  const online = async (): Promise<number> => Number(await first.page.getByTestId("online").innerText());
  await expect(first.page.getByTestId("online")).toHaveText(/^[1-9]\d*$/);
  // Visitors of earlier tests may still be in their grace.
  await expect.poll(online, { timeout: 15_000 }).toBe(1);
  const total = Number((await first.page.getByTestId("visits").innerText()).replace(/\D/g, ""));
  const wall = await open("/?wall");
  await expect(wall.page.getByTestId("online")).toHaveText("1");
  const second = await open();
  for (const { page } of [first, wall, second]) {
    await expect(page.getByTestId("online")).toHaveText("2");
    await expect(page.getByTestId("visits")).toHaveText(String(total + 1));
  }
  await second.page.close();
  await expect(first.page.getByTestId("online")).toHaveText("1");
  await expect(first.page.getByTestId("visits")).toHaveText(String(total + 1));
});
