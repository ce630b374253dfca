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

for (const reducedMotion of ["no-preference", "reduce"] as const) {
  test.describe(`with ${reducedMotion} for motion`, () => {
    test.use({ contextOptions: { reducedMotion } });

    test("a new number of visitors pulses only for those who like motion", async ({ open }) => {
      const { page } = await open();
      const online = page.getByTestId("online");
      // Visitors of earlier tests have gone, so that nobody goes when one comes.
      await expect(online).toHaveText("1");
      await page.evaluate(() => {
        document.addEventListener("animationstart", ({ target }) => {
          if (target instanceof HTMLElement && target.dataset["testid"] === "online") document.body.dataset["pulsed"] = "";
        });
      });
      await open();
      await expect(online).toHaveText("2");
      // The animation starts with the frame that shows the number; two frames later it would have been told.
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      expect(await page.evaluate(() => "pulsed" in document.body.dataset)).toBe(reducedMotion === "no-preference");
    });
  });
}
