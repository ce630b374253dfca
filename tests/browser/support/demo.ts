import { spawn, type ChildProcess } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { expect } from "@playwright/test";
import { Client } from "pg";
import { Output } from "./output.js";

/** One part of the demo, as `.tidemark/demo.json` names it. */
export interface Entry {
  readonly service: "front" | "app" | "dashboard" | "metric-generator" | "postgres";
  readonly name: string;
  readonly pid: number;
  readonly url: string;
  readonly admin: string | null;
}

/** A stored text. */
export interface Text {
  readonly id: string;
  readonly text: string;
}

/** Services of which the demo keeps replicas, and how many of each. */
const SERVICES = 3;
const REPLICAS = 2;

/** How long a leaving dashboard takes to move its clients. Short, so that the suite is; the page cannot tell. */
const DRAIN_SECONDS = 2;

/** Time limit for the demo to be ready, ms: longer than its own, so that its report comes first. */
const READY = 65_000;

const PAGE = resolve(import.meta.dirname, "../../../frontend/dist");

/** The real thing: `tidemark demo` with its own database, and parts that may be killed. */
export class Demo {
  readonly #process: ChildProcess;
  readonly #program: string;
  readonly #directory: string;
  readonly #output: Output;
  /** Where the page is. */
  readonly url: string;

  private constructor(program: string, process: ChildProcess, directory: string, output: Output, url: string) {
    this.#program = program;
    this.#process = process;
    this.#directory = directory;
    this.#output = output;
    this.url = url;
  }

  /** Starts it, with so many made-up servers, and waits until everything is ready. */
  static async start(allowedOrigins: readonly string[], serverCount: number): Promise<Demo> {
    const program = process.env["TIDEMARK_BIN"];
    if (program === undefined || !existsSync(program)) {
      throw new Error("TIDEMARK_BIN must name the built program tidemark (cargo build -p tidemark -p app -p dashboard -p metric-generator)");
    }
    if (!existsSync(join(PAGE, "index.html"))) throw new Error(`${PAGE} has no page: run npm run build in frontend`);
    const directory = await mkdtemp(join(tmpdir(), "tidemark-browser-"));
    const env = {
      ...process.env,
      ALLOWED_ORIGINS: allowedOrigins.join(","),
      DRAIN_SECONDS: String(DRAIN_SECONDS),
      SERVER_COUNT: String(serverCount),
    };
    const child = spawn(resolve(program), ["demo", "--port", "0", "--page-dir", PAGE], {
      cwd: directory,
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const output = new Output("the demo", child);
    const began = performance.now();
    for (;;) {
      const url = /Tidemark runs at (\S+)/.exec(output.text)?.[1];
      if (url !== undefined) return new Demo(resolve(program), child, directory, output, url);
      const ended = child.exitCode !== null || child.signalCode !== null;
      if (ended || performance.now() - began > READY) {
        child.kill("SIGTERM");
        await output.closed();
        throw new Error(`the demo ${ended ? "ended" : `was not ready after ${READY} ms`}:\n${output.text}`);
      }
      await setTimeout(20);
    }
  }

  /** Who runs now. */
  async entries(): Promise<Entry[]> {
    return JSON.parse(await readFile(join(this.#directory, ".tidemark/demo.json"), "utf8")) as Entry[];
  }

  /** The parts of one service. */
  async all(service: Entry["service"]): Promise<Entry[]> {
    return (await this.entries()).filter((entry) => entry.service === service);
  }

  /** The part with this name. */
  async named(name: string): Promise<Entry> {
    const entry = (await this.entries()).find((entry) => entry.name === name);
    if (!entry) throw new Error(`nothing is called ${name}`);
    return entry;
  }

  /** Starts one more metric generator, for so many servers, which the demo knows nothing of. Gives its process. */
  async generate(serverCount: number): Promise<ChildProcess> {
    const env = {
      ...process.env,
      DATABASE_URL: await this.#database(),
      HOST: "127.0.0.1",
      PORT: "0",
      ADMIN_PORT: "0",
      REPLICA_NAME: "metric-generator-of-the-test",
      SERVER_COUNT: String(serverCount),
    };
    const program = join(dirname(this.#program), "metric-generator");
    const child = spawn(program, { env, stdio: ["ignore", "pipe", "pipe"] });
    new Output("the generator of the test", child);
    return child;
  }

  /** Waits until every replica and the database are there and ready: what the last test killed has been replaced. */
  async whole(): Promise<void> {
    await expect
      .poll(async () => {
        const entries = await this.entries();
        const ready = await Promise.all(entries.filter(({ admin }) => admin !== null).map(isReady));
        const database = entries.some(({ service }) => service === "postgres");
        return { ready: ready.filter(Boolean).length, database };
      })
      .toEqual({ ready: SERVICES * REPLICAS, database: true });
  }

  /** Stops the database and keeps it from coming back: its port is taken until the outage is ended. */
  async loseDatabase(): Promise<{ end: () => Promise<void> }> {
    const [postgres] = await this.all("postgres");
    if (!postgres) throw new Error("there is no database to lose");
    process.kill(postgres.pid, "SIGINT"); // a fast shutdown
    await expect.poll(async () => (await this.all("postgres")).length).toBe(0);
    const squatter = createServer((socket) => socket.destroy());
    squatter.listen(Number(new URL(postgres.url).port), "127.0.0.1");
    await once(squatter, "listening");
    return {
      end: async () => {
        squatter.close();
        await once(squatter, "close");
      },
    };
  }

  /** Waits until every dashboard has read that so many texts are stored: then any of them can serve it without the database. */
  async everyDashboardKnows(count: number): Promise<void> {
    const dashboards = await this.all("dashboard");
    await Promise.all(dashboards.map(({ url }) => knows(this.#program, url, count)));
  }

  /** Where the demo's database is. */
  async #database(): Promise<string> {
    const [postgres] = await this.all("postgres");
    if (!postgres) throw new Error("there is no database");
    return postgres.url;
  }

  /** Does something in the database that the project knows nothing of. */
  async sql(...statements: string[]): Promise<void> {
    const client = new Client({ connectionString: await this.#database() });
    await client.connect();
    try {
      for (const statement of statements) await client.query(statement);
    } finally {
      await client.end();
    }
  }

  /** Runs the command line on the demo's database. */
  async run(...args: string[]): Promise<void> {
    const env = { ...process.env, DATABASE_URL: await this.#database() };
    const child = spawn(this.#program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    const output = new Output(`tidemark ${args.join(" ")}`, child);
    await output.closed();
    expect(child.exitCode, output.text).toBe(0);
  }

  /** Stores texts as a program would. */
  async add(...texts: string[]): Promise<void> {
    const answers = texts.map(async (text) => {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(`${this.url}/save`, { method: "POST", headers, body: JSON.stringify({ text }) });
      expect(answer.status).toBe(201);
    });
    await Promise.all(answers);
  }

  /** Everything that is stored, newest first. */
  async texts(): Promise<Text[]> {
    const texts: Text[] = [];
    let before: string | null = null;
    do {
      const query = before === null ? "" : `&before=${encodeURIComponent(before)}`;
      const answer = await fetch(`${this.url}/all?limit=500${query}`);
      expect(answer.status).toBe(200);
      const page = (await answer.json()) as { texts: Text[]; next: string | null };
      texts.push(...page.texts);
      before = page.next;
    } while (before !== null);
    return texts;
  }

  /** How many rows have this text. */
  async stored(text: string): Promise<number> {
    return (await this.texts()).filter((row) => row.text === text).length;
  }

  /** Ends everything; the demo promises to leave nothing behind. */
  async stop(): Promise<void> {
    this.#process.kill("SIGTERM");
    await this.#output.closed();
    expect(this.#process.exitCode, this.#output.text).toBe(0);
    expect(existsSync(join(this.#directory, ".tidemark")), "the demo leaves no file").toBe(false);
    await rm(this.#directory, { recursive: true });
  }
}

/**
 * A free port of this machine, outside the range from which the kernel assigns ports, so that it
 * stays free until the program that it is for listens on it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 30_000);
    const server = createServer().listen(port, "127.0.0.1");
    try {
      await once(server, "listening");
    } catch {
      continue; // in use
    }
    server.close();
    await once(server, "close");
    return port;
  }
}

async function isReady({ admin }: Entry): Promise<boolean> {
  try {
    return (await fetch(`${admin ?? ""}/readyz`, { signal: AbortSignal.timeout(1_000) })).ok;
  } catch {
    return false;
  }
}

/** Watches one dashboard as a terminal does, until it tells this count. */
async function knows(program: string, url: string, count: number): Promise<void> {
  const watcher = spawn(program, ["watch", url, "--json"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    for await (const line of createInterface(watcher.stdout)) {
      const { value } = JSON.parse(line) as { value?: { count?: number } };
      if (value?.count === count) return;
    }
    throw new Error(`${url} ended before it told ${count}`);
  } finally {
    watcher.kill("SIGTERM");
  }
}
