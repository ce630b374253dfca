import { AgeClock, ageOf, Connection, type Handover, type Snapshot, type Visit } from "../../client/index.js";
import { Servers, SERVERS } from "./servers.svelte.js";

/** The feed of the large number. */
const FEED = "texts";

/** The feed of those who look at a board. */
const VISITORS = "visitors";

/** As many as fit a glance. */
const LOG_LENGTH = 5;

/** A hand-over, with the time of day. */
export interface LoggedHandover extends Handover {
  readonly number: number;
  readonly at: Date;
}

/** The pushed values and everything about the connection that the page shows. */
export class Live {
  readonly #connection: Connection;
  snapshot: Snapshot;
  /** Newest first. */
  handovers = $state.raw<readonly LoggedHandover[]>([]);
  /** `12 s`, while that is worth saying. */
  age = $state<string | null>(null);

  /** One timer for all ages on the page. */
  readonly #ages = new AgeClock();
  readonly servers = new Servers(this.#ages);

  /** `onCount` is told of every count that arrives. Without a visit the page is not counted as a visitor. */
  constructor(visit: Visit | null, onCount: (count: number) => void) {
    this.#connection = new Connection({ server: document.baseURI, feeds: [FEED, VISITORS, SERVERS], visit });
    this.snapshot = $state.raw(this.#connection.snapshot);
    let told: number | null = null;
    this.#connection.subscribe((snapshot) => {
      this.snapshot = snapshot;
      if (snapshot.handover) this.#log(snapshot.handover);
      this.#ages.refresh(this.#watchAge);
      this.servers.take(snapshot, this.#connection.now());
      const { count } = this;
      if (count !== null && count !== told) onCount((told = count));
    });
  }

  /** How many texts are stored; null while that is not known. */
  get count(): number | null {
    return this.#number(FEED, "count");
  }

  /** How many visitors have a page open; null while that is not known. */
  get online(): number | null {
    return this.#number(VISITORS, "online");
  }

  /** How many visits there ever were; null while that is not known. */
  get visits(): number | null {
    return this.#number(VISITORS, "total");
  }

  #number(feed: string, field: string): number | null {
    const value = this.snapshot.items.get(`${feed}:`)?.value as Record<string, unknown> | undefined;
    const number = value?.[field];
    return typeof number === "number" ? number : null;
  }

  /** Connects, for as long as the page lives. */
  start(): void {
    this.#connection.start();
  }

  readonly #watchAge = (now: number): number | null => {
    const { knownAt, database } = this.snapshot;
    const { text, changesAt } = ageOf(knownAt.get(FEED), now, { away: database === "down" });
    this.age = text;
    return changesAt;
  };

  #log(handover: Handover): void {
    const number = (this.handovers[0]?.number ?? 0) + 1;
    this.handovers = [{ ...handover, number, at: new Date() }, ...this.handovers].slice(0, LOG_LENGTH);
  }
}
