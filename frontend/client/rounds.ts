import { backoff } from "./backoff.js";
import { ANSWER } from "./constants.js";
import type { History } from "./values.js";

/** What a `hello` told of the other side. */
export interface Peer {
  readonly replica: string;
  readonly history: History;
  readonly beatMs: number;
}

/** A connection that has not delivered yet. */
export interface Candidate {
  readonly conn: number;
  deadline: number;
  peer: Peer | null;
}

/** Attempts: rounds of one or two candidates, and the waits between rounds (rules 1, 2 and 6). */
export class Rounds {
  /** Those of the round under way. */
  candidates: Candidate[] = [];
  /** When the next round starts, if one is waited for. */
  nextAt: number | null = null;
  /** How often the wait has doubled. */
  failures = 0;
  /** Connections opened in the life of the machine. */
  #opened = 0;
  /** Rounds since a connection was last live. */
  #count = 0;
  /** A candidate of this round was told to wait so long. */
  #toldToWait: number | null = null;

  /** Whether an attempt is under way or waited for. */
  get busy(): boolean {
    return this.candidates.length > 0 || this.nextAt !== null;
  }

  /** Starts a round: one connection in the first, two that race in every later one. Gives their numbers. */
  begin(now: number): number[] {
    const size = this.#count === 0 ? 1 : 2;
    this.#count += 1;
    this.nextAt = null;
    this.#toldToWait = null;
    const opened = Array.from({ length: size }, () => (this.#opened += 1));
    this.candidates.push(...opened.map((conn) => ({ conn, deadline: now + ANSWER, peer: null })));
    return opened;
  }

  /** A candidate is out; after the last one the next round is planned. */
  fail(now: number, random: number, conn: number, wait: number | null): void {
    this.candidates = this.candidates.filter((candidate) => candidate.conn !== conn);
    if (wait !== null) this.#toldToWait = Math.max(wait, this.#toldToWait ?? 0);
    if (this.candidates.length > 0) return;
    if (this.#toldToWait !== null) {
      this.#count -= 1;
      this.nextAt = now + this.#toldToWait;
    } else {
      this.nextAt = now + backoff(this.failures, random);
      this.failures += 1;
    }
  }

  /** The current connection is gone: the delay of the next round, if one has to be planned (rule 5). */
  delayAfterLoss(random: number, stable: boolean): number {
    if (stable) this.failures = 0;
    const delay = backoff(this.failures, random);
    if (!stable) this.failures += 1;
    return delay;
  }

  /** Ends all attempts: one has delivered, or none is wanted. Gives the connections that are left. */
  end(): number[] {
    const left = this.candidates.map((candidate) => candidate.conn);
    this.candidates = [];
    this.nextAt = null;
    this.#toldToWait = null;
    this.#count = 0;
    return left;
  }
}
