import { browser, type Environment } from "./environment.js";

/** A screen reader needs about this long for a short sentence, ms; more often would flood its listener. */
export const ANNOUNCE_EVERY = 10_000;

/** Passes on the first call at once and then at most one per interval, always the newest. */
export class Throttle<T> {
  readonly #target: (value: T) => void;
  readonly #every: number;
  readonly #environment: Pick<Environment, "after">;
  #waiting: { readonly value: T } | null = null;
  #cancelTimer: (() => void) | null = null;

  constructor(target: (value: T) => void, every = ANNOUNCE_EVERY, environment: Pick<Environment, "after"> = browser) {
    this.#target = target;
    this.#every = every;
    this.#environment = environment;
  }

  /** Passes the value on, now or later. */
  push(value: T): void {
    this.#waiting = { value };
    if (this.#cancelTimer === null) this.#pass();
  }

  /** Drops what waits. */
  stop(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.#waiting = null;
  }

  #pass(): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    this.#cancelTimer = null;
    if (!waiting) return;
    this.#target(waiting.value);
    this.#cancelTimer = this.#environment.after(this.#every, () => {
      this.#pass();
    });
  }
}
