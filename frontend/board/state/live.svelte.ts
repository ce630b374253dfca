import { AgeClock, ageOf, Connection, type Handover, type Snapshot } from "../../client/index.js";

/** The feed of the page. */
const FEED = "texts";

/** As many as fit a glance. */
const LOG_LENGTH = 5;

/** A hand-over, with the time of day. */
export interface LoggedHandover extends Handover {
  readonly number: number;
  readonly at: Date;
}

/** The pushed count and everything about the connection that the page shows. */
export class Live {
  readonly #connection = new Connection({ server: document.baseURI, feeds: [FEED] });
  snapshot = $state.raw<Snapshot>(this.#connection.snapshot);
  /** Newest first. */
  handovers = $state.raw<readonly LoggedHandover[]>([]);
  /** `12 s`, while that is worth saying. */
  age = $state<string | null>(null);

  readonly #ages = new AgeClock();

  /** `onCount` is told of every count that arrives. */
  constructor(onCount: (count: number) => void) {
    let told: number | null = null;
    this.#connection.subscribe((snapshot) => {
      this.snapshot = snapshot;
      if (snapshot.handover) this.#log(snapshot.handover);
      this.#ages.refresh(this.#watchAge);
      const { count } = this;
      if (count !== null && count !== told) onCount((told = count));
    });
  }

  /** How many texts are stored; null while that is not known. */
  get count(): number | null {
    const value = this.snapshot.items.get(`${FEED}:`)?.value as { count?: unknown } | undefined;
    return typeof value?.count === "number" ? value.count : null;
  }

  /** Connects, for as long as the page lives. */
  start(): void {
    this.#connection.start();
  }

  readonly #watchAge = (now: number): number | null => {
    const { knownAt, database } = this.snapshot;
    const { text, changesAt } = ageOf(knownAt.get(FEED), now, database === "down");
    this.age = text;
    return changesAt;
  };

  #log(handover: Handover): void {
    const number = (this.handovers[0]?.number ?? 0) + 1;
    this.handovers = [{ ...handover, number, at: new Date() }, ...this.handovers].slice(0, LOG_LENGTH);
  }
}
