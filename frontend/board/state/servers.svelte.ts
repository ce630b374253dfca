import { AgeClock, type Snapshot } from "../../client/index.js";
import { Server } from "./server.svelte.js";
import { SPAN } from "./trail.js";

/** The feed of the servers; its keys are their names. */
export const SERVERS = "servers";
const PREFIX = `${SERVERS}:`;

/** How long the card of a server that went stays, ms: long enough to see which one it was. */
export const FAREWELL = 2_000;

/** With more servers than this a filter helps: they no longer fit a glance. */
export const MANY = 20;

/** Ages are looked at no more often than this, ms: a hundred stale servers change their texts together, not one after the other. */
const TOGETHER = 250;

/** Charts begin this wide, s, and widen as time goes on: a page that was just opened has something to show. */
const FIRST_SPAN = 60;

/** Names as people count them: `server-2` before `server-10`. */
const { compare } = new Intl.Collator("en", { numeric: true });

/** All servers that a dashboard tells of. */
export class Servers {
  /** In the order of their names, with those that are just leaving. */
  list = $state.raw<readonly Server[]>([]);
  /** The newest second of all. */
  newest = $state(0);
  /** The newest second when the first values came. */
  #first = $state(0);
  /** How wide all charts are, s: the same for all, so that they can be compared. */
  readonly span = $derived(Math.min(Math.max(this.newest - this.#first, FIRST_SPAN), SPAN));
  /** Whether the servers were told: an empty list then means that there are none. */
  known = $state(false);
  /** What the reader looks for in the names. */
  filter = $state("");

  /** How many there are. */
  readonly count = $derived(this.list.filter(({ gone }) => !gone).length);
  /** How many of them are without fresh values. */
  readonly stale = $derived(this.list.filter(({ age, gone }) => age !== null && !gone).length);
  /** Those whose names fit the filter. */
  readonly found = $derived(this.list.filter(({ id }) => fits(id, this.filter)));

  readonly #ages: AgeClock;
  /** When each of the leaving ones went. */
  readonly #left = new Map<Server, number>();

  constructor(ages = new AgeClock()) {
    this.#ages = ages;
  }

  /** Takes what is known at `now`. */
  take({ items, knownAt }: Snapshot, now: number): void {
    const known = knownAt.get(SERVERS);
    if (known === undefined) return;
    const told = [...items].filter(([name]) => name.startsWith(PREFIX));
    const newest = Math.max(0, ...told.map(([, { version }]) => version));
    const before = new Map(this.list.map((server) => [server.id, server]));
    const present = new Set<Server>();
    for (const [name, item] of told) {
      const id = name.slice(PREFIX.length);
      const server = before.get(id) ?? new Server(id);
      // Versions are seconds, so one that lags behind the newest was true that much earlier.
      server.take(item, known - (newest - item.version) * 1_000);
      server.gone = false;
      this.#left.delete(server);
      present.add(server);
    }
    for (const server of this.list) {
      if (present.has(server) || server.gone) continue;
      server.gone = true;
      this.#left.set(server, now);
    }
    if ([...present].some(({ id }) => !before.has(id))) {
      this.list = [...present, ...this.#left.keys()].sort((a, b) => compare(a.id, b.id));
    }
    if (this.#first === 0) this.#first = newest;
    this.newest = newest;
    this.known = true;
    this.#ages.refresh(this.#watch);
  }

  /** Lets the servers age and leave. */
  readonly #watch = (now: number): number | null => {
    for (const [server, leftAt] of this.#left) {
      if (now - leftAt < FAREWELL) continue;
      this.#left.delete(server);
      this.list = this.list.filter((other) => other !== server);
    }
    const times = this.list.map((server) => server.look(now)).filter((time) => time !== null);
    const next = Math.min(...times, ...[...this.#left.values()].map((leftAt) => leftAt + FAREWELL));
    return next === Infinity ? null : Math.max(next, now + TOGETHER);
  };
}

/** Whether a name has all that was typed, in any case. */
function fits(id: string, filter: string): boolean {
  return id.toLowerCase().includes(filter.trim().toLowerCase());
}
