import { browser, type Environment } from "./environment.js";

/** From this age on a page says how old a value is, ms: two beats of 5 s, so that a healthy replica is never called old. */
export const OLD = 10_000;

/** Something whose look depends on the time. Gives when it wants to be asked again, or null. */
export type Watcher = (now: number) => number | null;

/** One timer for everything on a page that shows an age, set to the nearest moment at which one of them changes. */
export class AgeClock {
  readonly #environment: Pick<Environment, "now" | "after">;
  readonly #watchers = new Map<Watcher, number | null>();
  #cancelTimer: (() => void) | null = null;

  constructor(environment: Pick<Environment, "now" | "after"> = browser) {
    this.#environment = environment;
  }

  /** Asks this watcher now, and again when it wants to be. Call it again whenever what it shows has changed. */
  refresh(watcher: Watcher): void {
    this.#watchers.set(watcher, watcher(this.#environment.now()));
    this.#setTimer();
  }

  /** Forgets a watcher. */
  remove(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    this.#setTimer();
  }

  #setTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    const times = [...this.#watchers.values()].filter((time) => time !== null);
    if (times.length === 0) return;
    const wait = Math.max(0, Math.min(...times) - this.#environment.now());
    this.#cancelTimer = this.#environment.after(wait, () => {
      const now = this.#environment.now();
      for (const [watcher, time] of this.#watchers) {
        if (time !== null && time <= now) this.#watchers.set(watcher, watcher(now));
      }
      this.#setTimer();
    });
  }
}

/** What to say of a value's age, and when that changes. */
export interface Age {
  /** `12 s`; null while there is nothing to say. */
  readonly text: string | null;
  /** Null: never by itself. */
  readonly changesAt: number | null;
}

/** From when on an age is told. */
export interface AgeOptions {
  /** While the database is away every age is worth telling. */
  readonly away?: boolean;
  /** From this age on it is worth telling anyway, ms. */
  readonly old?: number;
}

/** The age of a value that was last known to be true at `knownAt`. */
export function ageOf(knownAt: number | undefined, now: number, { away = false, old = OLD }: AgeOptions = {}): Age {
  if (knownAt === undefined) return { text: null, changesAt: null };
  if (now - knownAt <= old && !away) return { text: null, changesAt: knownAt + old + 1 };
  const seconds = Math.max(0, Math.floor((now - knownAt) / 1_000));
  return { text: duration(seconds), changesAt: knownAt + (seconds + 1) * 1_000 };
}

/** `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d`. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return join(Math.floor(seconds / 60), "min", seconds % 60, "s");
  if (seconds < 86_400) return join(Math.floor(seconds / 3_600), "h", Math.floor((seconds % 3_600) / 60), "min");
  return `${Math.floor(seconds / 86_400)} d`;
}

function join(whole: number, unit: string, rest: number, smaller: string): string {
  return rest === 0 ? `${whole} ${unit}` : `${whole} ${unit} ${rest} ${smaller}`;
}
