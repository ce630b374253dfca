import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { setTimeout } from "node:timers/promises";
import { freePort } from "./demo.js";

const PROGRAM = resolve(import.meta.dirname, "stock.mjs");

/** How long the server is away after its end, as under a supervisor. */
export const AWAY = 1_000;

/** A stock `ws` server on one port, which is started again whenever it has ended. */
export class Stock {
  readonly url: string;
  readonly #port: number;
  #process: ChildProcess | null = null;
  #away: Promise<number> | null = null;
  #stopped = false;

  private constructor(port: number) {
    this.#port = port;
    this.url = `ws://127.0.0.1:${String(port)}/any/path?room=1`;
  }

  static async start(): Promise<Stock> {
    const stock = new Stock(await freePort());
    await stock.#spawn();
    return stock;
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error("the server is away");
    return pid;
  }

  /** From its last end until it was up again, ms. */
  async away(): Promise<number> {
    if (this.#away === null) throw new Error("the server has not ended");
    return this.#away;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    const child = this.#process;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  async #spawn(): Promise<void> {
    const child = spawn(process.execPath, [PROGRAM, String(this.#port)], { stdio: ["ignore", "pipe", "inherit"] });
    this.#process = child;
    child.once("exit", () => {
      this.#away = this.#return();
    });
    await once(child.stdout, "data");
  }

  /** Starts again after a while, and gives how long it was away, ms. */
  async #return(): Promise<number> {
    const ended = performance.now();
    await setTimeout(AWAY);
    if (!this.#stopped) await this.#spawn();
    return performance.now() - ended;
  }
}
