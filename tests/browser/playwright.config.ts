import { defineConfig } from "@playwright/test";
import { chromium } from "./support/chromium.js";

/**
 * One demo is shared by all specs, and they kill its parts: so one worker, one after the other. No retries: a test that passes only
 * the second time has found something.
 */
export default defineConfig({
  testDir: "specs",
  workers: 1,
  retries: 0,
  fullyParallel: false,
  forbidOnly: process.env["CI"] !== undefined,
  // The longest is a database that goes and comes back: 3 s away, some for its recovery, and a page that waits up to 10 s between tries.
  timeout: 60_000,
  expect: { timeout: 20_000 },
  reporter: [["list"]],
  use: {
    viewport: { width: 1280, height: 800 },
    screenshot: "only-on-failure",
    launchOptions: {
      executablePath: chromium(),
      args: [
        // Where the suite runs as root, Chromium's own sandbox cannot be used; it opens only pages of this machine.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
      ],
    },
  },
});
