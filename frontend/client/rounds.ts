import { backoff, spread } from "./backoff.js";
import { ANSWER, CLOSE, FALLBACK, JOIN, JOINS, PROBE, PROBE_FIRST } from "./constants.js";
import type { History } from "./values.js";

/** What carries a connection: a WebSocket, `/ws`, or server-sent events, `/events`. */
export type Transport = "ws" | "sse";

/** What a `hello` told of the other side. */
export interface Peer {
  readonly replica: string;
  readonly history: History;
  readonly beatMs: number;
}

/** A connection to be opened. */
export interface Attempt {
  readonly conn: number;
  readonly transport: Transport;
}

/** A connection that has not delivered yet. */
export interface Candidate extends Attempt {
  readonly openedAt: number;
  deadline: number;
  peer: Peer | null;
}

/** How a candidate ended. */
export interface Failure {
  /** Close code; abnormal without one. */
  readonly code: number;
  /** Told to wait so long. */
  readonly wait: number | null;
}

/** Given up by the client itself. */
export const GIVEN_UP: Failure = { code: CLOSE.abnormal, wait: null };

/** Attempts: rounds of candidates, the waits between rounds, what carries a candidate, and the probes of a client that fell back. */
export class Rounds {
  /** Those of the round under way, or the probe. */
  candidates: Candidate[] = [];
  /** When the next round starts, if one is waited for. */
  nextAt: number | null = null;
  /** When one more connection joins the round under way, if one is waited for. */
  joinAt: number | null = null;
  /** When the next probe starts, if one is waited for. */
  probeAt: number | null = null;
  /** How often the wait has doubled. */
  failures = 0;
  /** Connections opened in the life of the machine. */
  #opened = 0;
  /** Rounds that failed since a connection was last live. */
  #failed = 0;
  /** How many connections may still join rounds: some after a silence, else none. */
  #joins = 0;
  /** WebSockets that failed in a row (rule 13). */
  #socketsFailed = 0;
  /** A candidate of this round was told to wait so long. */
  #toldToWait: number | null = null;

  /** Whether an attempt is under way or waited for. */
  get busy(): boolean {
    return this.candidates.length > 0 || this.nextAt !== null;
  }

  /** Starts a round: one connection in the first, two that race in every later one (rules 1 and 13). */
  begin(now: number): Attempt[] {
    this.nextAt = null;
    this.probeAt = null;
    this.#toldToWait = null;
    this.#awaitJoin(now);
    const attempts = [this.#open(now, this.#carrier())];
    if (this.#failed > 0) attempts.push(this.#open(now, "ws"));
    return attempts;
  }

  /** One more connection joins the round, unless somebody there is answering (rule 1). */
  join(now: number): Attempt[] {
    const answered = this.candidates.some((candidate) => candidate.peer !== null);
    if (!answered) this.#joins -= 1;
    this.#awaitJoin(now);
    return answered ? [] : [this.#open(now, this.#carrier())];
  }

  #awaitJoin(now: number): void {
    this.joinAt = this.#joins > 0 ? now + JOIN : null;
  }

  /** What carries a connection that does not race for another transport (rule 13). */
  #carrier(): Transport {
    return this.#socketsFailed < FALLBACK ? "ws" : "sse";
  }

  /** Starts a WebSocket beside an SSE connection (rule 14). */
  probe(now: number): Attempt {
    this.probeAt = null;
    this.#toldToWait = null;
    return this.#open(now, "ws");
  }

  #open(now: number, transport: Transport): Attempt {
    const conn = (this.#opened += 1);
    this.candidates.push({ conn, transport, openedAt: now, deadline: now + ANSWER, peer: null });
    return { conn, transport };
  }

  /** A candidate is out; after the last one the next round is planned, or, if this was a probe, the next probe (rules 2, 6, 13 and 14). */
  fail(now: number, random: number, conn: number, { code, wait }: Failure, isProbe: boolean): void {
    const out = this.candidates.find((candidate) => candidate.conn === conn);
    this.candidates = this.candidates.filter((candidate) => candidate !== out);
    if (out?.transport === "ws") {
      // These two came through a WebSocket: what is refused is not the transport.
      const gotThrough = code === CLOSE.tryLater || code === CLOSE.policy;
      this.#socketsFailed = gotThrough ? 0 : this.#socketsFailed + 1;
    }
    if (wait !== null) this.#toldToWait = Math.max(wait, this.#toldToWait ?? 0);
    if (this.candidates.length > 0) return;
    this.joinAt = null;
    if (isProbe) {
      this.probeAt = now + (this.#toldToWait ?? spread(PROBE, random));
    } else if (this.#toldToWait !== null) {
      this.nextAt = now + this.#toldToWait;
    } else {
      this.nextAt = now + backoff(this.failures, random);
      this.failures += 1;
      this.#failed += 1;
    }
  }

  /** The current connection is gone: the delay of the next round, if one has to be planned (rule 5). */
  delayAfterLoss(random: number, stable: boolean): number {
    this.probeAt = null;
    if (stable) this.failures = 0;
    const delay = backoff(this.failures, random);
    if (!stable) this.failures += 1;
    return delay;
  }

  /** The current connection has been silent. Whoever chooses the replica may take it for alive as well, so this counts as a failed round, and more than two attempts may be needed (rule 5). */
  countSilence(): void {
    this.#failed = Math.max(this.#failed, 1);
    this.#joins = JOINS;
  }

  /** A candidate has delivered (rules 3 and 14). Gives the connections that have to be closed. */
  won(now: number, random: number, { conn, transport }: Attempt): number[] {
    const others = this.candidates.filter((candidate) => candidate.conn !== conn);
    this.end();
    if (transport === "ws") {
      this.#socketsFailed = 0;
    } else {
      this.candidates = others.filter((other) => other.transport === "ws");
      if (this.candidates.length === 0) this.probeAt = now + spread(PROBE_FIRST, random);
    }
    return others.filter((other) => !this.candidates.includes(other)).map((other) => other.conn);
  }

  /** Ends all attempts. Gives the connections that are left. */
  end(): number[] {
    const left = this.candidates.map((candidate) => candidate.conn);
    this.candidates = [];
    this.nextAt = null;
    this.joinAt = null;
    this.probeAt = null;
    this.#toldToWait = null;
    this.#failed = 0;
    this.#joins = 0;
    return left;
  }
}
