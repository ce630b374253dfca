import { expect, test } from "vitest";
import { Connection, type Snapshot } from "../connection.js";
import { pageVisit, Visit } from "../visit.js";
import { World } from "./world.js";

function started(server = "https://board.example/", feeds = ["texts"]): { world: World; connection: Connection; seen: Snapshot[] } {
  const world = new World();
  const connection = new Connection({ server, feeds, environment: world });
  const seen: Snapshot[] = [];
  connection.subscribe((snapshot) => seen.push(snapshot));
  connection.start();
  return { world, connection, seen };
}

test("the address follows the page's, with the sub-protocol and the feeds as they are written", () => {
  const { world } = started("https://board.example/house/", ["texts", "servers:a b"]);
  expect(world.socket().url.href).toBe("wss://board.example/house/ws?feeds=texts,servers:a%20b");
  expect(world.socket().protocol).toBe("tidemark.v1");
  expect(started("http://localhost:3000").world.socket().url.href).toBe("ws://localhost:3000/ws?feeds=texts");
});

test("a page is one visit, and its sockets are numbered across its connections", () => {
  const [world, visit] = [new World(), new Visit("0af76519-16cd-43dd-8448-eb211c80319c")];
  for (const feeds of [["texts"], ["visitors"]]) {
    new Connection({ server: "https://board.example/", feeds, visit, environment: world }).start();
  }
  const asked = world.sockets.map(({ url }) => [url.searchParams.get("visit"), url.searchParams.get("n")]);
  expect(asked).toEqual([
    [visit.id, "1"],
    [visit.id, "2"],
  ]);
  expect(started().world.socket().url.searchParams.has("visit")).toBe(false);
});

test("every page makes its own id, also where the browser has no randomUUID", () => {
  expect(pageVisit()).toBe(pageVisit());
  const ids = new Set(Array.from({ length: 100 }, () => new Visit().id));
  expect(ids.size).toBe(100);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("values and their age reach the subscribers", () => {
  const { world, connection } = started();
  world.pass(20);
  world.socket().deliver("dashboard-1", 7);
  const { status, replica, items, knownAt } = connection.snapshot;
  expect({ status, replica }).toEqual({ status: "live", replica: "dashboard-1" });
  expect(items.get("texts:")?.value).toEqual({ count: 7 });
  expect(knownAt.get("texts")).toBe(20);
});

test("a move opens a second socket with the cursor, and the first is closed only after it has delivered", () => {
  const { world, seen } = started();
  const first = world.socket();
  first.deliver("dashboard-1", 7);
  first.say({ type: "move", graceMs: 10_000 });
  const second = world.socket();
  expect(second.url.searchParams.get("since")).toBe("c7");
  expect(first.closedWith).toBeNull();
  world.pass(18);
  second.deliver("dashboard-2", 8);
  expect(first.closedWith).toBe(1000);
  expect(seen.at(-1)?.handover).toEqual({ type: "handover", from: "dashboard-1", to: "dashboard-2", ms: 18, planned: true });
  expect(seen.map(({ status }) => status).slice(2)).not.toContain("reconnecting");
});

test("nothing of a closed socket counts any more", () => {
  const { world, connection } = started();
  const socket = world.socket();
  socket.deliver("dashboard-1", 7);
  connection.stop();
  expect(socket.closedWith).toBe(1000);
  socket.say({ type: "beat", ageMs: {} });
  socket.end();
  expect(connection.snapshot.status).toBe("idle");
});

test("one timer serves everything: after a loss the next attempt comes by itself", () => {
  const { world, connection } = started();
  world.socket().deliver("dashboard-1", 7);
  world.socket().end();
  expect(connection.snapshot.status).toBe("reconnecting");
  expect(world.timers.size).toBe(1);
  world.pass(250);
  expect(world.sockets).toHaveLength(2);
});

test("a silent connection is given up by the clock", () => {
  const { world, connection } = started();
  world.socket().deliver("dashboard-1", 7);
  world.pass(12_499);
  expect(connection.snapshot.status).toBe("live");
  world.pass(1);
  expect(connection.snapshot.status).toBe("reconnecting");
});

test("a page that comes online tries at once", () => {
  const { world } = started();
  world.socket().deliver("dashboard-1", 7);
  world.socket().end();
  world.page?.nudge();
  expect(world.sockets).toHaveLength(2);
});

test("a page that goes into the back/forward cache closes its socket, and takes up where it was", () => {
  const { world, connection } = started();
  world.socket().deliver("dashboard-1", 7);
  world.page?.leave();
  expect(world.socket().closedWith).toBe(1000);
  world.page?.comeBack();
  expect(world.socket().url.searchParams.get("since")).toBe("c7");
  expect(connection.snapshot.items.get("texts:")?.value).toEqual({ count: 7 });
});

test("an address that may not be opened is a failed attempt, not an exception", async () => {
  const world = new World();
  world.open = () => {
    throw new DOMException("mixed content", "SecurityError");
  };
  const connection = new Connection({ server: "https://board.example/", feeds: ["texts"], environment: world });
  connection.start();
  await Promise.resolve();
  expect(connection.snapshot.status).toBe("connecting");
  expect(world.timers.size).toBe(1);
});

test("what is not JSON, or no text, only proves life", () => {
  const { world, connection } = started();
  world.socket().deliver("dashboard-1", 7);
  world.pass(10_000);
  world.socket().say("no json");
  world.socket().onmessage?.({ data: new ArrayBuffer(1) });
  world.pass(10_000);
  expect(connection.snapshot.status).toBe("live");
});

test("a refusal shows its reason and ends all attempts", () => {
  const { world, connection } = started();
  world.socket().end(1008, "feeds: unknown feed");
  expect(connection.snapshot).toMatchObject({ status: "refused", reason: "feeds: unknown feed" });
  expect(world.timers.size).toBe(0);
});
