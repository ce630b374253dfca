import { expect, test } from "vitest";
import { Connection } from "../connection.js";
import { Visit } from "../visit.js";
import { World, type FakeStream } from "./world.js";

const VISIT = "0af76519-16cd-43dd-8448-eb211c80319c";

/** A page behind a proxy that lets no WebSocket through: it has asked for a stream. */
function fallen(server = "https://board.example/house/"): { world: World; connection: Connection; stream: FakeStream } {
  const world = new World();
  const connection = new Connection({ server, feeds: ["texts", "servers:a b"], visit: new Visit(VISIT), environment: world });
  connection.start();
  world.socket().end();
  world.pass(250);
  world.socket(2).end();
  world.socket(1).end();
  world.pass(250);
  world.socket().end();
  return { world, connection, stream: world.stream() };
}

test("after three failed sockets a stream is asked for, at the page's own scheme", () => {
  const { world, stream } = fallen();
  expect(world.sockets).toHaveLength(4);
  expect(stream.url.href).toBe(`https://board.example/house/events?feeds=texts,servers:a%20b&visit=${VISIT}&n=4`);
  expect(fallen("http://localhost:3000/").stream.url.origin).toBe("http://localhost:3000");
});

test("frames come as events", () => {
  const { world, connection, stream } = fallen();
  stream.deliver("dashboard-1", 7);
  expect(connection.snapshot).toMatchObject({ status: "live", transport: "sse", replica: "dashboard-1" });
  expect(connection.snapshot.items.get("texts:")?.value).toEqual({ count: 7 });
  world.pass(10_000);
  stream.say("beat", { type: "beat", ageMs: { texts: 3 } });
  expect(connection.snapshot.knownAt.get("texts")).toBe(world.now() - 3);
});

test("a stream that breaks off is closed, and the machine asks for a new one with the cursor", () => {
  const { world, connection, stream } = fallen();
  stream.deliver("dashboard-1", 7);
  stream.breakOff();
  expect(stream.closed, "the browser would reconnect on its own").toBe(true);
  expect(connection.snapshot).toMatchObject({ status: "reconnecting", transport: null });
  stream.breakOff();
  world.pass(1_000);
  expect(world.streams).toHaveLength(2);
  expect(world.stream().url.searchParams.get("since")).toBe("c7");
});

test("the event close is what a close frame is", () => {
  const { connection, stream } = fallen();
  stream.say("close", { code: 1008, reason: "feeds: unknown feed" });
  expect(stream.closed).toBe(true);
  expect(connection.snapshot).toMatchObject({ status: "refused", reason: "feeds: unknown feed" });
});

test("an event close that cannot be read is an end without a code", () => {
  for (const data of ["", "no json", "[]", { code: "1008" }, { code: -1, reason: "x" }]) {
    const { connection, stream } = fallen();
    stream.deliver("dashboard-1", 7);
    stream.say("close", data);
    expect(connection.snapshot.status).toBe("reconnecting");
  }
});

test("a move over a stream makes before it breaks", () => {
  const { world, connection, stream } = fallen();
  stream.deliver("dashboard-1", 7);
  stream.say("move", { type: "move", graceMs: 10_000 });
  expect(stream.closed).toBe(false);
  world.stream().deliver("dashboard-2", 8);
  expect(stream.closed).toBe(true);
  expect(connection.snapshot).toMatchObject({ status: "live", transport: "sse", replica: "dashboard-2" });
});

test("a socket that gets through takes over from the stream, which is closed after it has delivered", () => {
  const { world, connection, stream } = fallen();
  stream.deliver("dashboard-1", 7);
  world.pass(11_249);
  const sockets = world.sockets.length;
  world.pass(1);
  expect(world.sockets).toHaveLength(sockets + 1);
  expect(connection.snapshot).toMatchObject({ status: "live", transport: "sse" });
  world.socket().deliver("dashboard-2", 8);
  expect(stream.closed).toBe(true);
  expect(connection.snapshot).toMatchObject({ status: "live", transport: "ws", replica: "dashboard-2" });
  stream.say("set", "nothing of it counts any more");
});

test("a stream that may not be opened is a failed attempt, not an exception", async () => {
  const world = new World();
  world.follow = () => {
    throw new DOMException("no", "SecurityError");
  };
  const connection = new Connection({ server: "https://board.example/", feeds: ["texts"], environment: world });
  connection.start();
  world.pass(5_000);
  await Promise.resolve();
  expect(connection.snapshot.status).toBe("connecting");
  expect(world.timers.size).toBe(1);
});
