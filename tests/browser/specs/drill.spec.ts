import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { expect, test } from "@playwright/test";
import { BACKOFF_CAP } from "../../../frontend/client/constants.js";
import { AWAY, Stock } from "../support/stock.js";

/** What a drill of any WebSocket server tells of one fault. */
interface During {
  readonly "blackout-p50": number;
  readonly "blackout-max": number;
  readonly reconnects: number;
  readonly closed: number;
  readonly closeCodes: Readonly<Record<string, number>>;
}

const CLIENTS = 20;

/** A ping that was on its way when the server ended, and the handshake with the new one, ms. */
const NOTICED = 1_000;

/** Drills the server by a command of the shell. */
async function drill(stock: Stock, command: string): Promise<During> {
  const program = process.env["TIDEMARK_BIN"];
  if (program === undefined) throw new Error("TIDEMARK_BIN must name the built program tidemark");
  const flags = ["--protocol", "generic", "--clients", String(CLIENTS), "--quiet", "1s", "--json", "--run", `fault=${command}`];
  const child = spawn(program, ["drill", stock.url, ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "exit") as Promise<[number | null]>]);
  expect(code, err).toBe(0);
  const report = JSON.parse(out) as { runs: [{ quiet: During; during: During }] };
  const { quiet, during } = report.runs[0];
  expect([quiet["blackout-max"], quiet.closed], "nothing happened before").toEqual([0, 0]);
  return during;
}

test.describe("a stock WebSocket server under the drill", () => {
  let stock: Stock;
  test.beforeEach(async () => {
    stock = await Stock.start();
  });
  test.afterEach(async () => {
    await stock.stop();
  });

  test("is killed: its clients are away until it is back, and come again", async () => {
    const during = await drill(stock, `kill -9 ${String(stock.pid)}`);
    expect(during.reconnects).toBe(CLIENTS);
    expect(during.closeCodes["1006"]).toBeGreaterThanOrEqual(CLIENTS);
    expect(during["blackout-p50"]).toBeGreaterThanOrEqual(AWAY);
    // By chance a client has failed five times in that time, and again just before the server was back.
    expect(during["blackout-max"]).toBeLessThan((await stock.away()) + BACKOFF_CAP + NOTICED);
  });

  test("freezes: its clients wait, and nobody is told", async () => {
    const pid = String(stock.pid);
    const during = await drill(stock, `kill -STOP ${pid}; sleep 3; kill -CONT ${pid}`);
    expect([during.reconnects, during.closed]).toEqual([0, 0]);
    // From the first ping that was not answered: one may have been on its way for 200 ms before.
    expect(during["blackout-p50"]).toBeGreaterThan(2_500);
    expect(during["blackout-max"]).toBeLessThan(4_000);
  });
});
