import type { Environment, PageEvents } from "../environment.js";

/** A socket that the test speaks for. The browser tests use real ones. */
export class FakeSocket {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  closedWith: number | null = null;
  readonly url: URL;
  readonly protocol: string;

  constructor(url: URL, protocol: string) {
    this.url = url;
    this.protocol = protocol;
  }

  close(code: number): void {
    this.closedWith = code;
  }

  /** The server sends a frame. */
  say(frame: unknown): void {
    this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  /** The server, or the network, ends the connection. */
  end(code = 1006, reason = ""): void {
    this.onclose?.({ code, reason });
  }

  /** `hello` and a first `set` with one number. */
  deliver(replica: string, count: number, feed = "texts", version = count): void {
    this.say(hello(replica));
    this.say(set(count, feed, version));
  }
}

/** A stream of events that the test speaks for. */
export class FakeStream extends EventTarget {
  closed = false;
  readonly url: URL;

  constructor(url: URL) {
    super();
    this.url = url;
  }

  close(): void {
    this.closed = true;
  }

  /** The server sends an event. */
  say(type: string, data: unknown): void {
    this.dispatchEvent(new MessageEvent(type, { data: typeof data === "string" ? data : JSON.stringify(data) }));
  }

  /** The server, or the network, ends the stream: the browser would connect again. */
  breakOff(): void {
    this.dispatchEvent(new Event("error"));
  }

  /** `hello` and a first `set` with one number. */
  deliver(replica: string, count: number): void {
    this.say("hello", hello(replica));
    this.say("set", set(count));
  }
}

/** A `hello`. */
export function hello(replica: string): unknown {
  return { type: "hello", protocol: "tidemark.v1", replica, version: "0.1.0", store: "s", timeline: 1, beatMs: 5_000, resumed: false };
}

/** A `set` with one scalar. */
export function set(count: number, feed = "texts", version = count): unknown {
  return { type: "set", cursor: `c${version}`, ageMs: { [feed]: 0 }, items: [{ feed, key: "", version, value: { count } }] };
}

/** A world in which the test is time, network and browser. */
export class World implements Environment {
  time = 0;
  page: PageEvents | null = null;
  readonly sockets: FakeSocket[] = [];
  readonly streams: FakeStream[] = [];
  readonly timers = new Map<number, { at: number; callback: () => void }>();
  #timer = 0;

  now(): number {
    return this.time;
  }

  random(): number {
    return 0.5;
  }

  after(ms: number, callback: () => void): () => void {
    const id = (this.#timer += 1);
    this.timers.set(id, { at: this.time + ms, callback });
    return () => this.timers.delete(id);
  }

  open(url: URL, protocol: string): WebSocket {
    const socket = new FakeSocket(url, protocol);
    this.sockets.push(socket);
    return socket as unknown as WebSocket;
  }

  follow(url: URL): EventSource {
    const stream = new FakeStream(url);
    this.streams.push(stream);
    return stream as unknown as EventSource;
  }

  watchPage(page: PageEvents): () => void {
    this.page = page;
    return () => {
      this.page = null;
    };
  }

  /** Lets time go on; timers fire when they are due. */
  pass(ms: number): void {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [id, { at, callback }] = due;
      this.timers.delete(id);
      this.time = Math.max(this.time, at);
      callback();
    }
    this.time = end;
  }

  /** The newest stream. */
  stream(): FakeStream {
    const stream = this.streams.at(-1);
    if (!stream) throw new Error("no stream was opened");
    return stream;
  }

  /** The newest socket, or the n-th from the end. */
  socket(fromEnd = 1): FakeSocket {
    const socket = this.sockets.at(-fromEnd);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }
}
