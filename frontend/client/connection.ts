import { CLOSE, PROTOCOL } from "./constants.js";
import { browser, type Environment } from "./environment.js";
import { parseFrame, type Database } from "./frames.js";
import { Machine, type Event, type Handover, type Status } from "./machine.js";
import type { Known } from "./values.js";
import type { Visit } from "./visit.js";

/** What a page can show, at one moment. */
export interface Snapshot {
  readonly status: Status;
  /** Who serves, or served last; null before the first. */
  readonly replica: string | null;
  /** Why the server refused; null if it did not. */
  readonly reason: string | null;
  readonly database: Database;
  /** `feed:key` -> newest value. */
  readonly items: ReadonlyMap<string, Known>;
  /** Feed -> time of the connection's clock at which its value was last known to be true. */
  readonly knownAt: ReadonlyMap<string, number>;
  /** Set in the one snapshot in which another connection took over. */
  readonly handover: Handover | null;
}

/** Where to connect, and for what. */
export interface ConnectionOptions {
  /** Base address of a Tidemark server, with a slash at its end; `ws` is added, http(s) becomes ws(s). */
  readonly server: URL | string;
  /** `feed` or `feed:key`. */
  readonly feeds: readonly string[];
  /** Whose connection it is; without one nobody is counted as a visitor. */
  readonly visit?: Visit | null;
  /** The connection that this one shall replace. It shares what that one has learned, so no value is lost and none runs backwards. */
  readonly replaces?: Connection | null;
  /** Only for tests. */
  readonly environment?: Environment;
}

/**
 * Keeps values coming: owns the sockets, one timer and the page's events, and does what the {@link Machine} says. It never sends
 * a message. Nothing happens before {@link start}.
 */
export class Connection {
  readonly #machine: Machine;
  readonly #url: URL;
  readonly #visit: Visit | null;
  readonly #environment: Environment;
  readonly #sockets = new Map<number, WebSocket>();
  readonly #listeners = new Set<(snapshot: Snapshot) => void>();
  #cancelTimer: (() => void) | null = null;
  #unwatchPage: (() => void) | null = null;

  constructor({ server, feeds, visit = null, replaces = null, environment = browser }: ConnectionOptions) {
    this.#machine = new Machine(replaces ? replaces.#machine.values : undefined);
    this.#url = new URL("ws", server);
    this.#url.protocol = this.#url.protocol.replace(/^http/, "ws");
    // Not searchParams: it would write the commas and colons that stand in a feed list as %2C and %3A.
    this.#url.search = `feeds=${feeds.map(encodeFeed).join(",")}`;
    this.#visit = visit;
    this.#environment = environment;
  }

  /** What can be shown now. */
  get snapshot(): Snapshot {
    return this.#snapshot(null);
  }

  /** Time of the clock that {@link Snapshot.knownAt} uses. */
  now(): number {
    return this.#environment.now();
  }

  /** Calls back after every change; gives what ends that. */
  subscribe(listener: (snapshot: Snapshot) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Connects, and stays connected until {@link stop}. */
  start(): void {
    this.#unwatchPage ??= this.#environment.watchPage({
      nudge: () => {
        this.#step({ type: "nudge" });
      },
      // An open socket keeps a page out of the back/forward cache, and a frozen page would not answer anyway.
      leave: () => {
        this.#step({ type: "stop" });
      },
      comeBack: () => {
        this.#step({ type: "start" });
      },
    });
    this.#step({ type: "start" });
  }

  /** Disconnects. The values stay; {@link start} takes up where this ended. */
  stop(): void {
    this.#unwatchPage?.();
    this.#unwatchPage = null;
    this.#step({ type: "stop" });
  }

  #step(event: Event): void {
    const environment = this.#environment;
    let handover: Handover | null = null;
    for (const effect of this.#machine.step(event, environment.now(), environment.random())) {
      if (effect.type === "open") this.#open(effect.conn, effect.since);
      else if (effect.type === "close") this.#close(effect.conn);
      else if (effect.type === "handover") handover = effect;
    }
    this.#setTimer();
    const snapshot = this.#snapshot(handover);
    for (const listener of this.#listeners) listener(snapshot);
  }

  #open(conn: number, since: string | null): void {
    const url = new URL(this.#url);
    if (this.#visit) url.search += `&visit=${this.#visit.id}&n=${this.#visit.next()}`;
    if (since !== null) url.search += `&since=${encodeURIComponent(since)}`;
    const closed = (code: number, reason: string): void => {
      this.#sockets.delete(conn);
      this.#step({ type: "closed", conn, code, reason });
    };
    let socket: WebSocket;
    try {
      socket = this.#environment.open(url, PROTOCOL);
    } catch (error) {
      // An address that this page may not use, as ws: on an https: page. Told later, as every other failure: a step is under way.
      queueMicrotask(() => {
        closed(CLOSE.abnormal, String(error));
      });
      return;
    }
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      this.#step({ type: "frame", conn, frame: parseFrame(data) });
    };
    socket.onclose = ({ code, reason }) => {
      closed(code, reason);
    };
    this.#sockets.set(conn, socket);
  }

  #close(conn: number): void {
    const socket = this.#sockets.get(conn);
    if (!socket) return;
    this.#sockets.delete(conn);
    socket.onmessage = null;
    socket.onclose = null;
    socket.close(CLOSE.done);
  }

  #setTimer(): void {
    this.#cancelTimer?.();
    const { wakeAt } = this.#machine;
    if (wakeAt === null) {
      this.#cancelTimer = null;
      return;
    }
    this.#cancelTimer = this.#environment.after(Math.max(0, wakeAt - this.now()), () => {
      this.#step({ type: "tick" });
    });
  }

  #snapshot(handover: Handover | null): Snapshot {
    const { status, replica, reason, values } = this.#machine;
    const { database, items, knownAt } = values;
    return { status, replica, reason, database, items: new Map(items), knownAt: new Map(knownAt), handover };
  }
}

/** Keys may hold any character; the colon after the feed's name stays readable. */
function encodeFeed(feed: string): string {
  return feed.split(":").map(encodeURIComponent).join(":");
}
