import { AxeBuilder } from "@axe-core/playwright";
import { expect, test } from "../support/test.js";

for (const colorScheme of ["light", "dark"] as const) {
  test.describe(`in a ${colorScheme} scheme`, () => {
    test.use({ contextOptions: { colorScheme } });

    test("axe finds nothing, on the page at rest and with everything shown", async ({ open, demo }) => {
      const board = await open();
      await board.text.fill("x".repeat(10_001));
      await board.saveButton.click();
      await expect(board.saveError).toBeVisible();
      await demo.add("somebody else's");
      await expect(board.newTexts).toBeVisible();
      await expect(board.serversThatAre("fresh")).toHaveCount(3);
      process.kill((await demo.named(await board.replica.innerText())).pid, "SIGKILL");
      await expect(board.handovers).toHaveCount(1);
      await board.live();
      // Colours that fade in are measured when they are there. A pulse that the next one cuts short has ended too.
      await board.page.evaluate(() => Promise.allSettled(document.getAnimations().map((animation) => animation.finished)));
      const { violations } = await new AxeBuilder({ page: board.page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
      expect(violations.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])])).toEqual([]);
    });
  });
}

test("the Content-Security-Policy is strict, and nothing on the page violates it", async ({ open, demo }) => {
  const policy = (await fetch(demo.url)).headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toContain("unsafe");
  const board = await open();
  await board.save("with all that a save shows");
  await demo.add("and what others do");
  await board.newTexts.click();
  await expect(board.newTexts).toHaveCount(0);
  expect((await board.seen()).violations).toEqual([]);
  expect(board.complaints).toEqual([]);
});

test("the page says over which protocol it came, and what carries the values", async ({ open }) => {
  for (const path of ["/", "/?wall"]) {
    const protocol = (await open(path)).page.getByTestId("protocol");
    await expect(protocol.getByText("HTTP/1.1", { exact: true })).toBeVisible();
    await expect(protocol.locator(":scope > :not([aria-hidden])")).toHaveText("page loaded over HTTP/1.1; live values over WebSocket (HTTP/1.1)");
  }
});

for (const width of [320, 360, 1280, 3840]) {
  test(`nothing is cut off at ${width} px`, async ({ open, demo }) => {
    await demo.add("a-word-without-an-end-".repeat(40));
    const board = await open();
    await board.page.setViewportSize({ width, height: Math.max(Math.round(width * 0.6), 240) });
    await expect(board.servers).toHaveCount(3);
    await expect(board.count).toBeInViewport({ ratio: 1 });
    await board.text.fill("another-word-without-an-end-".repeat(40));
    const overflow = await board.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    expect(overflow).toBeLessThanOrEqual(0);
  });
}
