import { expect, test } from "vitest";
import { AgeClock, type Known, type Snapshot } from "../../client/index.js";
import { World } from "../../client/tests/world.js";
import { STALE } from "../state/server.svelte.js";
import { FAREWELL, Servers } from "../state/servers.svelte.js";

/** Some second of Unix time. */
const SECOND = 1_795_000_000;

/** A board's servers, and the world that tells of them. */
class Scene {
  readonly world = new World();
  readonly servers = new Servers(new AgeClock(this.world));
  readonly #items = new Map<string, Known>([["texts:", { version: 1, value: { count: 7 } }]]);

  /** A frame with the value of some servers in this second, known to be true so long ago. */
  tell(ids: readonly string[], second: number, { cpu = 12.4, ageMs = 0 }: { cpu?: unknown; ageMs?: number } = {}): void {
    for (const id of ids) this.#put(id, second, cpu);
    this.#take(ageMs);
  }

  /** A frame with values of different seconds. */
  tellEach(servers: readonly (readonly [id: string, second: number])[]): void {
    for (const [id, second] of servers) this.#put(id, second, 12.4);
    this.#take(0);
  }

  /** A frame that is whole and lacks these servers. */
  drop(...ids: string[]): void {
    for (const id of ids) this.#items.delete(`servers:${id}`);
    this.#take(0);
  }

  #put(id: string, second: number, cpu: unknown): void {
    const value = { cpu_usage: cpu, memory_usage: 45.5, disk_usage: 78.9, timestamp: "2026-11-21T12:00:00Z" };
    this.#items.set(`servers:${id}`, { version: second, value });
  }

  #take(ageMs: number): void {
    const knownAt = new Map([["servers", this.world.now() - ageMs]]);
    this.servers.take({ items: new Map(this.#items), knownAt } as unknown as Snapshot, this.world.now());
  }

  get ids(): string[] {
    return this.servers.list.map(({ id }) => id);
  }

  /** `server-1: 12 s` for each that is stale. */
  get stale(): string[] {
    return this.servers.list.filter(({ age }) => age !== null).map(({ id, age }) => `${id}: ${age ?? ""}`);
  }
}

/** The names of so many servers. */
function names(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `server-${index + 1}`);
}

test("there are no servers only when that was told", () => {
  const scene = new Scene();
  const silent = { items: new Map(), knownAt: new Map([["texts", 0]]) } as unknown as Snapshot;
  scene.servers.take(silent, 0);
  expect(scene.servers.known).toBe(false);
  scene.drop();
  expect(scene.servers.known).toBe(true);
  expect(scene.ids).toEqual([]);
});

test("servers stand in the order in which people count, whatever the order of their coming", () => {
  const scene = new Scene();
  scene.tell(["server-10", "server-2", "db"], SECOND);
  scene.tell(["server-1"], SECOND + 1);
  expect(scene.ids).toEqual(["db", "server-1", "server-2", "server-10"]);
});

test("numbers are whole percents, and what is no number is not known", () => {
  const scene = new Scene();
  scene.tell(["a"], SECOND);
  const [server] = scene.servers.list;
  expect([server?.cpu, server?.memory, server?.disk]).toEqual([12, 46, 79]);
  scene.tell(["a"], SECOND + 1, { cpu: "much" });
  expect([server?.cpu, server?.memory]).toEqual([null, 46]);
  expect(server?.trail.columns()[0]).toEqual([SECOND]);
});

test("a card keeps its server and fills its line with what is pushed", () => {
  const scene = new Scene();
  scene.tell(["a", "b"], SECOND, { cpu: 3.2 });
  const [server] = scene.servers.list;
  scene.tell(["a"], SECOND + 1, { cpu: 45.6 });
  expect(scene.servers.list[0]).toBe(server);
  expect(server?.trail.columns()).toEqual([
    [SECOND, SECOND + 1],
    [3.2, 45.6],
  ]);
  expect(server?.range).toBe("3 to 46\u00a0%");
  expect(scene.servers.list[1]?.trail.columns()).toEqual([[SECOND], [3.2]]);
});

test("a frame without news of a server adds nothing to its line", () => {
  const scene = new Scene();
  scene.tell(["a"], SECOND);
  scene.tell([], SECOND);
  expect(scene.servers.list[0]?.trail.columns()[0]).toEqual([SECOND]);
});

test("a server that falls silent while others go on is stale, and fresh again with its next value", () => {
  const scene = new Scene();
  scene.tell(["a", "b"], SECOND);
  for (let second = 1; second <= 6; second += 1) {
    scene.world.pass(1_000);
    scene.tell(["a"], SECOND + second);
  }
  expect(scene.stale).toEqual(["b: 6 s"]);
  expect(scene.servers.stale).toBe(1);
  scene.tell(["b"], SECOND + 6);
  expect(scene.stale).toEqual([]);
});

test("all are stale by the clock alone when nothing is pushed any more", () => {
  const scene = new Scene();
  scene.tell(["a", "b"], SECOND);
  scene.world.pass(STALE);
  expect(scene.stale).toEqual([]);
  scene.world.pass(1);
  expect(scene.stale).toEqual(["a: 5 s", "b: 5 s"]);
  scene.world.pass(7_000);
  expect(scene.stale).toEqual(["a: 12 s", "b: 12 s"]);
});

test("a page that was just opened sees how old a value is, by how far it lags and by the age of the feed", () => {
  const scene = new Scene();
  scene.tellEach([
    ["lagging", SECOND - 20],
    ["newest", SECOND],
  ]);
  expect(scene.stale).toEqual(["lagging: 20 s"]);
  const old = new Scene();
  old.tell(["a"], SECOND, { ageMs: 60_000 });
  expect(old.stale).toEqual(["a: 1 min"]);
});

test("a server that goes is shown as gone, and then leaves", () => {
  const scene = new Scene();
  scene.tell(["a", "b"], SECOND);
  scene.drop("a");
  expect(scene.servers.list.map(({ id, gone }) => [id, gone])).toEqual([
    ["a", true],
    ["b", false],
  ]);
  expect(scene.servers.count).toBe(1);
  scene.world.pass(FAREWELL - 1);
  expect(scene.ids).toEqual(["a", "b"]);
  scene.world.pass(1);
  expect(scene.ids).toEqual(["b"]);
});

test("a server that comes back before its card has left keeps it", () => {
  const scene = new Scene();
  scene.tell(["a"], SECOND);
  const [server] = scene.servers.list;
  scene.drop("a");
  scene.world.pass(FAREWELL / 2);
  scene.tell(["a"], SECOND + 1);
  scene.world.pass(FAREWELL);
  expect(scene.servers.list).toEqual([server]);
  expect(server?.gone).toBe(false);
});

test("the filter looks for a part of the name, in any case", () => {
  const scene = new Scene();
  scene.tell(names(100), SECOND);
  scene.servers.filter = " SERVER-2";
  expect(scene.servers.found.map(({ id }) => id)).toEqual(["server-2", ...names(29).slice(19)]);
  scene.servers.filter = "nobody";
  expect(scene.servers.found).toEqual([]);
  scene.servers.filter = "";
  expect(scene.servers.found).toHaveLength(100);
});

test("charts begin with a minute and widen to five", () => {
  const scene = new Scene();
  scene.tell(["a"], SECOND);
  expect(scene.servers.span).toBe(60);
  scene.tell(["a"], SECOND + 100);
  expect(scene.servers.span).toBe(100);
  scene.tell(["a"], SECOND + 1_000);
  expect(scene.servers.span).toBe(300);
});
