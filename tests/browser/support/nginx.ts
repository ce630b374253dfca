import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect } from "@playwright/test";
import { freePort } from "./demo.js";
import { Output } from "./output.js";

const FIND = resolve(import.meta.dirname, "../find-nginx");

/** What a site's own proxy needs so that WebSockets pass. Without it nginx speaks HTTP/1.0 to what is behind it, and forgets `Upgrade`. */
const UPGRADE = `
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;`;

/** A real nginx in front of a server, configured as the shortest example says: no WebSocket gets through. */
export class Nginx {
  readonly #process: ChildProcess;
  readonly #directory: string;
  readonly #server: string;
  readonly #port: number;
  readonly #output: Output;

  private constructor(process: ChildProcess, directory: string, server: string, port: number) {
    this.#process = process;
    this.#directory = directory;
    this.#server = server;
    this.#port = port;
    this.#output = new Output("nginx", process);
  }

  /** Starts it, and waits until it passes on requests. */
  static async start(server: string): Promise<Nginx> {
    const program = find();
    const directory = await mkdtemp(join(tmpdir(), "tidemark-nginx-"));
    const port = await freePort();
    await writeFile(join(directory, "nginx.conf"), configuration(server, port, false));
    // -e: the log that it opens before it reads the configuration, which only root may write.
    const process = spawn(program, ["-p", directory, "-c", "nginx.conf", "-e", "stderr"], { stdio: ["ignore", "ignore", "pipe"] });
    const nginx = new Nginx(process, directory, server, port);
    await nginx.#answers("upgrades no");
    return nginx;
  }

  /** Where it listens. */
  get url(): string {
    return `http://localhost:${this.#port}`;
  }

  /** What it has said. */
  get log(): string {
    return this.#output.text;
  }

  /** Mends the configuration and reloads it, as an administrator does: what is connected stays connected. */
  async passUpgrades(): Promise<void> {
    await writeFile(join(this.#directory, "nginx.conf"), configuration(this.#server, this.#port, true));
    this.#process.kill("SIGHUP");
    await this.#answers("upgrades yes");
  }

  /** Ends it at once. */
  async stop(): Promise<void> {
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    await ended;
    await rm(this.#directory, { recursive: true });
  }

  async #answers(configured: string): Promise<void> {
    await expect
      .poll(async () => {
        expect(this.#process.exitCode, this.log).toBeNull();
        try {
          return (await fetch(this.url)).headers.get("x-nginx");
        } catch {
          return null;
        }
      })
      .toBe(configured);
  }
}

function find(): string {
  try {
    return execFileSync(FIND, { encoding: "utf8" }).trim();
  } catch {
    throw new Error("no nginx found: install one (Debian: apt-get install nginx-light), or name its program in NGINX");
  }
}

function configuration(server: string, port: number, upgrades: boolean): string {
  const places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${name};`).join(" ");
  // Its workers would be somebody else, who may not enter this directory.
  const user = process.getuid?.() === 0 ? "user root;" : "";
  return `
daemon off;
pid nginx.pid;
error_log stderr warn;
worker_processes 1;
${user}
events { worker_connections 256; }
http {
  access_log off;
  ${places}
  map $http_upgrade $connection_upgrade { default upgrade; "" close; }
  server {
    listen 127.0.0.1:${port};
    add_header X-Nginx "upgrades ${upgrades ? "yes" : "no"}";
    location / {
      proxy_pass ${server};
      proxy_set_header Host $http_host;${upgrades ? UPGRADE : ""}
    }
  }
}
`;
}
