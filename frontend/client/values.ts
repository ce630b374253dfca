import type { Beat, Database, SetFrame } from "./frames.js";

/** Which past of which database. Versions compare only within one. */
export interface History {
  readonly store: string;
  readonly timeline: number;
}

/** The newest known value of one item. */
export interface Known {
  readonly version: number;
  readonly value: unknown;
}

/** Everything that was learned: the newest value of each item, where the client stands, how old each feed is. It survives connections. */
export class Values {
  /** `feed:key` -> value; a scalar feed's name ends in `:`. */
  readonly items = new Map<string, Known>();
  /** Feed -> the client's time at which its value was last known to be true. It may lie before the clock's start. */
  readonly knownAt = new Map<string, number>();
  /** Where the client stands. */
  cursor: string | null = null;
  /** Of which history the versions are. */
  history: History | null = null;
  /** Whether the replica that serves can read the database. */
  database: Database = "up";

  /** Whether this is an earlier past of the known store (rule 9): a replica that reads a database server that was failed away from. */
  isPast(history: History): boolean {
    return this.history?.store === history.store && this.history.timeline > history.timeline;
  }

  /** Takes a `set` that a replica of this history sent (rules 9 and 10). Gives the names of the items that changed, sorted. */
  apply(now: number, history: History, frame: SetFrame): string[] {
    const reset = frame.reset || this.history?.store !== history.store || this.history.timeline !== history.timeline;
    const named = new Set(frame.items.map((item) => `${item.feed}:${item.key}`));
    const changed = new Set<string>();
    for (const name of this.items.keys()) {
      const [feed = ""] = name.split(":", 1);
      if ((reset || frame.complete.includes(feed)) && !named.has(name)) {
        this.items.delete(name);
        changed.add(name);
      }
    }
    for (const { feed, key, version, value } of frame.items) {
      const name = `${feed}:${key}`;
      const old = this.items.get(name);
      const taken = !old || version > old.version || (reset && !isSame(old, { version, value }));
      if (taken) {
        this.items.set(name, { version, value });
        changed.add(name);
      }
    }
    this.cursor = frame.cursor;
    this.history = history;
    this.refresh(now, frame);
    return [...changed].sort();
  }

  /** Takes the ages and the state of the database. */
  refresh(now: number, { ageMs, database }: Pick<Beat, "ageMs" | "database">): void {
    for (const [feed, age] of Object.entries(ageMs)) this.knownAt.set(feed, now - age);
    this.database = database;
  }
}

/** Values are small JSON objects that one encoder writes, so their text tells whether they are equal. */
function isSame(a: Known, b: Known): boolean {
  return a.version === b.version && JSON.stringify(a.value) === JSON.stringify(b.value);
}
