import { Connection, type Snapshot } from "../connection.js";
import { pageVisit } from "../visit.js";

/** Who wants which feed, and is told of every change. */
export interface Subscriber {
  /** `feed` or `feed:key`. */
  readonly feed: string;
  /** Shows what is known now. `now` is a time of the clock of {@link Snapshot.knownAt}. */
  show(snapshot: Snapshot, now: number): void;
}

/** A connection and what it was asked for. */
interface Line {
  readonly connection: Connection;
  readonly feeds: ReadonlySet<string>;
}

/** Makes a connection for these feeds, which goes on where another one stands. */
type Connect = (feeds: readonly string[], replaces: Connection | null) => Connection;

/**
 * One server as seen by all elements of a page: they share one connection, whose feeds are the union of theirs. When the union
 * grows a second connection is made and the first is kept until the new one answers, so nothing on the page goes blank.
 */
export class SharedServer {
  readonly #connect: Connect;
  readonly #subscribers = new Set<Subscriber>();
  #current: Line | null = null;
  #next: Line | null = null;
  #settling = false;

  constructor(connect: Connect) {
    this.#connect = connect;
  }

  /** Adds a subscriber and shows it what is known already. */
  add(subscriber: Subscriber): void {
    this.#subscribers.add(subscriber);
    this.#show(subscriber);
    this.#settleSoon();
  }

  /** Forgets a subscriber. */
  remove(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    this.#settleSoon();
  }

  /** Elements come, go and move in groups; the connection is settled once after all of them. */
  #settleSoon(): void {
    if (this.#settling) return;
    this.#settling = true;
    queueMicrotask(() => {
      this.#settling = false;
      this.#settle();
    });
  }

  #settle(): void {
    const wanted = new Set([...this.#subscribers].map(({ feed }) => feed));
    if (wanted.size === 0) {
      this.#current?.connection.stop();
      this.#next?.connection.stop();
      this.#current = this.#next = null;
    } else if (this.#current && fits(this.#current, wanted)) {
      this.#next?.connection.stop();
      this.#next = null;
    } else if (!this.#next || !fits(this.#next, wanted)) {
      this.#next?.connection.stop();
      const connection = this.#connect([...wanted].sort(), this.#current?.connection ?? null);
      const line = { connection, feeds: wanted };
      if (this.#current) this.#next = line;
      else this.#current = line;
      this.#start(line);
    }
  }

  #start(line: Line): void {
    line.connection.subscribe(({ status }) => {
      if (line === this.#next && status === "live") this.#takeOver();
      if (line === this.#current || line === this.#next) {
        for (const subscriber of this.#subscribers) this.#show(subscriber);
      }
    });
    line.connection.start();
  }

  #takeOver(): void {
    this.#current?.connection.stop();
    this.#current = this.#next;
    this.#next = null;
  }

  /** An element looks at the connection that was asked for its feed; the established one first. */
  #show(subscriber: Subscriber): void {
    const line = [this.#current, this.#next].find((line) => line?.feeds.has(subscriber.feed));
    if (line) subscriber.show(line.connection.snapshot, line.connection.now());
  }
}

const servers = new Map<string, SharedServer>();

/** The shared view of this server; the first use makes it. */
export function sharedServer(server: string): SharedServer {
  let shared = servers.get(server);
  if (!shared) {
    shared = new SharedServer((feeds, replaces) => new Connection({ server, feeds, visit: pageVisit(), replaces }));
    servers.set(server, shared);
  }
  return shared;
}

/** Whether a line serves these feeds. A refused one may have been refused for a feed that nobody wants any more. */
function fits({ connection, feeds }: Line, wanted: ReadonlySet<string>): boolean {
  const serves = [...wanted].every((feed) => feeds.has(feed));
  return serves && (wanted.size === feeds.size || connection.snapshot.status !== "refused");
}
