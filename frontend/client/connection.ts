import { CLOSE } from "./constants.js";
import { browser, type Environment } from "./environment.js";
import type { Database, Frame } from "./frames.js";
import { Machine, type Event, type Handover, type Status } from "./machine.js";
import type { Transport } from "./rounds.js";
import { OPEN, type Link } from "./transports.js";
import type { Known } from "./values.js";
import type { Visit } from "./visit.js";

/** What a page can show, at one moment. */
export interface Snapshot {
  readonly status: Status;
  /** Who serves, or served last; null before the first. */
  readonly replica: string | null;
  /** What carries the values; null without a connection. */
  readonly transport: Transport | null;
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
  /** Base address of a Tidemark server, with a slash at its end; `ws` or `events` is added. */
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
 * Keeps values coming: owns the connections, one timer and the page's events, and does what the {@link Machine} says. It never sends
 * a message. Nothing happens before {@link start}.
 */
export class Connection {
  readonly #machine: Machine;
  readonly #server: URL;
  readonly #query: string;
  readonly #visit: Visit | null;
  readonly #environment: Environment;
  readonly #links = new Map<number, Link>();
  readonly #listeners = new Set<(snapshot: Snapshot) => void>();
  #cancelTimer: (() => void) | null = null;
  #unwatchPage: (() => void) | null = null;

  constructor({ server, feeds, visit = null, replaces = null, environment = browser }: ConnectionOptions) {
    this.#machine = new Machine(replaces ? replaces.#machine.values : undefined);
    this.#server = new URL(server);
    // Not searchParams: it would write the commas and colons that stand in a feed list as %2C and %3A.
    this.#query = `feeds=${feeds.map(encodeFeed).join(",")}`;
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
      if (effect.type === "open") this.#open(effect.conn, effect.since, effect.transport);
      else if (effect.type === "close") this.#close(effect.conn);
      else if (effect.type === "handover") handover = effect;
    }
    this.#setTimer();
    const snapshot = this.#snapshot(handover);
    for (const listener of this.#listeners) listener(snapshot);
  }

  #open(conn: number, since: string | null, transport: Transport): void {
    const closed = (code: number, reason: string): void => {
      this.#links.delete(conn);
      this.#step({ type: "closed", conn, code, reason });
    };
    const listener = {
      frame: (frame: Frame): void => {
        this.#step({ type: "frame", conn, frame });
      },
      closed,
    };
    try {
      this.#links.set(conn, OPEN[transport](this.#environment, this.#address(since, transport), listener));
    } catch (error) {
      // An address that this page may not use, as ws: on an https: page. Told later, as every other failure: a step is under way.
      queueMicrotask(() => {
        closed(CLOSE.abnormal, String(error));
      });
    }
  }

  #address(since: string | null, transport: Transport): URL {
    const url = new URL(transport === "ws" ? "ws" : "events", this.#server);
    // Browsers ask for a WebSocket with this scheme, and for everything else with the page's.
    url.protocol = url.protocol.replace(/^(http|ws)/, transport === "ws" ? "ws" : "http");
    url.search = this.#query;
    if (this.#visit) url.search += `&visit=${this.#visit.id}&n=${this.#visit.next()}`;
    if (since !== null) url.search += `&since=${encodeURIComponent(since)}`;
    return url;
  }

  #close(conn: number): void {
    this.#links.get(conn)?.close();
    this.#links.delete(conn);
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
    const { status, replica, transport, reason, values } = this.#machine;
    const { database, items, knownAt } = values;
    return { status, replica, transport, reason, database, items: new Map(items), knownAt: new Map(knownAt), handover };
  }
}

/** Keys may hold any character; the colon after the feed's name stays readable. */
function encodeFeed(feed: string): string {
  return feed.split(":").map(encodeURIComponent).join(":");
}
