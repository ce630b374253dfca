import { test as base } from "@playwright/test";
import { Board } from "./board.js";
import { Demo } from "./demo.js";
import { ForeignSite } from "./foreign.js";
import { Output } from "./output.js";

interface Shared {
  /** A site that `ALLOWED_ORIGINS` names. */
  friend: ForeignSite;
  /** A site that it does not name. */
  stranger: ForeignSite;
  /** How many servers the demo makes up. */
  serverCount: number;
  /** The running system. */
  demo: Demo;
}

interface PerTest {
  /** Prints the output of the programs under test if the test fails. */
  report: undefined;
  /** Opens one more page, in a browser context of its own. */
  open: (path?: string) => Promise<Board>;
}

/** Tests that find the whole demo running. */
export const test = base.extend<PerTest, Shared>({
  friend: [
    async ({}, use) => {
      const site = await ForeignSite.start();
      await use(site);
      await site.stop();
    },
    { scope: "worker" },
  ],
  stranger: [
    async ({}, use) => {
      const site = await ForeignSite.start();
      await use(site);
      await site.stop();
    },
    { scope: "worker" },
  ],
  serverCount: [3, { option: true, scope: "worker" }],
  demo: [
    async ({ friend, serverCount }, use) => {
      const demo = await Demo.start([friend.origin], serverCount);
      await use(demo);
      await demo.stop();
    },
    { scope: "worker", timeout: 120_000 },
  ],
  report: [
    async ({}, use, info) => {
      Output.mark();
      await use(undefined);
      if (info.status !== info.expectedStatus) Output.print();
    },
    { auto: true },
  ],
  open: async ({ browser, demo, contextOptions }, use) => {
    await demo.whole();
    const contexts: { close: () => Promise<void> }[] = [];
    await use(async (path = "/") => {
      const context = await browser.newContext(contextOptions);
      contexts.push(context);
      return await Board.open(await context.newPage(), demo.url + path);
    });
    await Promise.all(contexts.map((context) => context.close()));
  },
});

export { expect } from "@playwright/test";
