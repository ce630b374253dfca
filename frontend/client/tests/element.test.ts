// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FakeSocket, hello, set } from "./world.js";

const sockets: FakeSocket[] = [];

/** As the browser's constructor: two strings. */
class SocketOfTheTest extends FakeSocket {
  constructor(url: URL | string, protocol: string) {
    super(new URL(url), protocol);
    sockets.push(this);
  }
}

/** Each test uses a server of its own, for connections are shared per server. */
let address = "";
let servers = 0;

beforeEach(() => {
  vi.stubGlobal("WebSocket", SocketOfTheTest);
  address = `http://server-${(servers += 1)}.example/`;
});

afterEach(async () => {
  document.body.replaceChildren();
  await Promise.resolve();
  sockets.length = 0;
  vi.unstubAllGlobals();
});

async function show(...elements: string[]): Promise<Element[]> {
  await import("../element/define.js");
  const template = document.createElement("div");
  template.innerHTML = elements.map((attributes) => `<tide-mark src="${address}" ${attributes}></tide-mark>`).join("");
  document.body.append(template);
  await Promise.resolve();
  return [...template.children];
}

function part(element: Element | undefined, name: string): string | null {
  return element?.shadowRoot?.querySelector(`[part="${name}"]`)?.textContent ?? null;
}

/** The value of a server. */
function sample(cpu: number): unknown {
  return { cpu_usage: cpu, memory_usage: 45.6, disk_usage: 78.9, timestamp: "2026-11-21T12:00:00Z" };
}

/** A `set` with all servers: one. */
function server(key: string, version: number, cpu: number): unknown {
  const items = [{ feed: "servers", key, version, value: sample(cpu) }];
  return { type: "set", cursor: "c", ageMs: { servers: 0 }, complete: ["servers"], items };
}

test("importing the class registers nothing; define does, and survives a second time", async () => {
  await import("../element/tide-mark.js");
  expect(customElements.get("tide-mark")).toBeUndefined();
  const { TideMark } = await import("../element/define.js");
  expect(customElements.get("tide-mark")).toBe(TideMark);
  vi.resetModules();
  await import("../element/define.js");
  expect(customElements.get("tide-mark")).toBe(TideMark);
});

test("a number that is not known is a dash, then the number in the language of the page", async () => {
  const [element] = await show('feed="texts" lang="de"');
  expect(part(element, "number")).toBe("–");
  expect(element?.getAttribute("data-status")).toBe("connecting");
  sockets[0]?.deliver("dashboard-1", 1_234);
  expect(part(element, "number")).toBe("1.234");
  expect(element?.getAttribute("data-status")).toBe("live");
});

test("visitors, one number of one server and an own table come over one connection", async () => {
  const elements = await show('feed="visitors" field="online"', 'feed="servers" key="server-1" field="cpu_usage"', 'feed="orders"');
  sockets[0]?.say(hello("dashboard-1"));
  const items = [
    { feed: "visitors", key: "", version: 1, value: { online: 3, total: 50 } },
    { feed: "servers", key: "server-1", version: 9, value: sample(12.345) },
    { feed: "orders", key: "", version: 4, value: { count: 1_234 } },
  ];
  sockets[0]?.say({ type: "set", cursor: "c", ageMs: { visitors: 0, servers: 0, orders: 0 }, complete: ["servers"], items });
  expect(elements.map((element) => part(element, "number"))).toEqual(["3", "12.3", "1,234"]);
  expect(sockets).toHaveLength(1);
});

test("measured numbers have one decimal at most, in the language of the page", async () => {
  const [element] = await show('feed="servers" key="server-1" lang="de"');
  sockets[0]?.say(hello("dashboard-1"));
  sockets[0]?.say(server("server-1", 1, 12.345));
  expect(part(element, "number")).toBe("12,3");
  sockets[0]?.say(server("server-1", 2, 12));
  expect(part(element, "number")).toBe("12");
});

test("a key that goes leaves a dash and is marked, until it comes back", async () => {
  const [element] = await show('feed="servers" key="server-1"');
  sockets[0]?.say(hello("dashboard-1"));
  sockets[0]?.say(server("server-1", 7, 12));
  expect(element?.hasAttribute("data-missing")).toBe(false);
  sockets[0]?.say({ type: "set", cursor: "c", ageMs: { servers: 0 }, complete: ["servers"], items: [] });
  expect(part(element, "number")).toBe("–");
  expect(element?.getAttribute("data-missing")).toBe("key");
  expect(element?.getAttribute("title")).toBe("no such item");
  expect(element?.shadowRoot?.querySelector("[aria-live=polite]")?.textContent).toBe("no value");
  sockets[0]?.say(server("server-1", 3, 14));
  expect(part(element, "number")).toBe("14");
  expect(element?.hasAttribute("data-missing")).toBe(false);
  expect(element?.hasAttribute("title")).toBe(false);
});

test("what the server does not have is marked as soon as it has said so, not before", async () => {
  const elements = await show('feed="servers" key="server-9"', 'feed="servers" key="server-1" field="nonsense"', 'feed="servers" key="server-1" field="timestamp"');
  const missing = (): (string | null)[] => elements.map((element) => element.getAttribute("data-missing"));
  sockets[0]?.say(hello("dashboard-1"));
  expect(missing()).toEqual([null, null, null]);
  sockets[0]?.say(server("server-1", 1, 12));
  expect(missing()).toEqual(["key", "field", "field"]);
  expect(elements.map((element) => part(element, "number"))).toEqual(["–", "–", "–"]);
  sockets[0]?.end();
  expect(missing()).toEqual(["key", "field", "field"]);
});

test("elements of one server share one connection, whose feeds are the union", async () => {
  const elements = await show('feed="texts"', 'feed="texts"', 'feed="servers" key="a" field="cpu_usage"');
  expect(sockets.map(({ url }) => url.searchParams.get("feeds"))).toEqual(["servers:a,texts"]);
  sockets[0]?.deliver("dashboard-1", 7);
  const item = { feed: "servers", key: "a", version: 1, value: { memory_usage: 1, cpu_usage: 42 } };
  sockets[0]?.say({ type: "set", cursor: "c", ageMs: { servers: 0 }, items: [item] });
  expect(elements.map((element) => part(element, "number"))).toEqual(["7", "7", "42"]);
});

test("when the union grows the old connection stays until the new one is live", async () => {
  const [first] = await show('feed="texts"');
  sockets[0]?.deliver("dashboard-1", 7);
  const [second] = await show('feed="visitors" field="online"');
  expect(sockets[1]?.url.searchParams.get("feeds")).toBe("texts,visitors");
  expect(sockets[0]?.closedWith).toBeNull();
  sockets[0]?.say(set(8));
  expect(part(first, "number")).toBe("8");
  expect(part(second, "number")).toBe("–");
  sockets[1]?.deliver("dashboard-2", 9);
  expect(sockets[0]?.closedWith).toBe(1000);
  expect(part(first, "number")).toBe("9");
  const item = { feed: "visitors", key: "", version: 1, value: { total: 50, online: 3 } };
  sockets[1]?.say({ type: "set", cursor: "c", ageMs: {}, items: [item] });
  expect(part(second, "number")).toBe("3");
});

test("the wider connection goes on where the first one stands: no value is lost, and none runs backwards", async () => {
  const [first] = await show('feed="texts"');
  sockets[0]?.deliver("dashboard-1", 7);
  const [second] = await show('feed="servers" key="server-1"');
  expect(sockets[1]?.url.searchParams.get("since")).toBe("c7");
  expect(second?.hasAttribute("data-missing")).toBe(false);
  sockets[0]?.say(set(9));
  sockets[1]?.say(hello("dashboard-2"));
  const items = [
    { feed: "texts", key: "", version: 8, value: { count: 8 } },
    { feed: "servers", key: "server-1", version: 1, value: sample(12) },
  ];
  sockets[1]?.say({ type: "set", cursor: "c8", ageMs: { texts: 0, servers: 0 }, items });
  expect([first, second].map((element) => part(element, "number"))).toEqual(["9", "12"]);
  expect(sockets[0]?.closedWith).toBe(1000);
});

test("an element that takes its feed away again leaves the first connection alone", async () => {
  const [first] = await show('feed="texts"');
  sockets[0]?.deliver("dashboard-1", 7);
  const [second] = await show('feed="visitors"');
  second?.remove();
  await Promise.resolve();
  expect(sockets.map(({ closedWith }) => closedWith)).toEqual([null, 1000]);
  sockets[0]?.say(set(8));
  expect(part(first, "number")).toBe("8");
});

test("when a feed that was refused is wanted no more, the others are asked for again", async () => {
  const [good, bad] = await show('feed="texts"', 'feed="nonsense"');
  sockets[0]?.end(1008, "unknown feed");
  expect(good?.getAttribute("data-status")).toBe("refused");
  bad?.remove();
  await Promise.resolve();
  expect(sockets[1]?.url.searchParams.get("feeds")).toBe("texts");
  sockets[1]?.deliver("dashboard-1", 7);
  expect(part(good, "number")).toBe("7");
  expect(good?.getAttribute("data-status")).toBe("live");
});

test("a feed that the server refuses does not take the others down", async () => {
  const [first] = await show('feed="texts"');
  sockets[0]?.deliver("dashboard-1", 7);
  const [second] = await show('feed="nonsense"');
  sockets[1]?.end(1008, "unknown feed");
  expect(part(second, "note")).toBe("refused: unknown feed");
  expect(second?.getAttribute("data-status")).toBe("refused");
  expect(first?.getAttribute("data-status")).toBe("live");
  sockets[0]?.say(set(8));
  expect(part(first, "number")).toBe("8");
});

test("an element that only moves within the page keeps its connection; the last one to leave ends it", async () => {
  const [element] = await show('feed="texts"');
  sockets[0]?.deliver("dashboard-1", 7);
  if (element) document.body.prepend(element);
  await Promise.resolve();
  expect(sockets).toHaveLength(1);
  expect(sockets[0]?.closedWith).toBeNull();
  element?.remove();
  await Promise.resolve();
  expect(sockets[0]?.closedWith).toBe(1000);
});

test("while the database is away the number says how old it is", async () => {
  const [element] = await show('feed="texts"');
  sockets[0]?.deliver("dashboard-1", 7);
  expect(element?.hasAttribute("title")).toBe(false);
  sockets[0]?.say({ type: "beat", ageMs: { texts: 12_000 }, database: "down" });
  expect(part(element, "note")).toBe("as of 12 s ago");
  expect(element?.getAttribute("title")).toBe("as of 12 s ago, database away");
  expect(element?.hasAttribute("data-old")).toBe(true);
  sockets[0]?.say({ type: "beat", ageMs: { texts: 0 } });
  expect(part(element, "note")).toBe("");
  expect(element?.hasAttribute("data-old")).toBe(false);
});

test("changes are spoken, the first number is not", async () => {
  const [element] = await show('feed="texts"');
  const spoken = element?.shadowRoot?.querySelector("[aria-live=polite]");
  sockets[0]?.deliver("dashboard-1", 7);
  expect(spoken?.textContent).toBe("");
  sockets[0]?.say(set(8));
  sockets[0]?.say(set(9));
  expect(spoken?.textContent).toBe("8");
});

test("a src that is no address is said", async () => {
  address = "http://[";
  const [element] = await show('feed="texts"');
  expect(part(element, "note")).toBe("refused: src is no address");
});
