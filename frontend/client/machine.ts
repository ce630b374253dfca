import { parseRetry } from "./backoff.js";
import { ANSWER, CLOSE, SILENCE_BEATS, STABLE } from "./constants.js";
import type { Frame, Hello } from "./frames.js";
import { GIVEN_UP, Rounds, type Attempt, type Candidate, type Failure, type Peer, type Transport } from "./rounds.js";
import { Values } from "./values.js";

/** Something happened. */
export type Event =
  /** The page wants values. */
  | { readonly type: "start" }
  /** A frame arrived on a connection. */
  | { readonly type: "frame"; readonly conn: number; readonly frame: Frame }
  /** A connection ended, or could not be opened. */
  | { readonly type: "closed"; readonly conn: number; readonly code: number; readonly reason: string }
  /** {@link Machine.wakeAt} has come. */
  | { readonly type: "tick" }
  /** The network came back, or somebody looks again. */
  | { readonly type: "nudge" }
  /** The page goes away; `start` takes up again. */
  | { readonly type: "stop" };

/** Another connection took over. */
export interface Handover {
  readonly type: "handover";
  /** The replica that served before. */
  readonly from: string;
  /** The replica that serves now. */
  readonly to: string;
  /** Since the `move` if planned, else since the loss. */
  readonly ms: number;
  /** Whether the old connection lived until the new one answered. */
  readonly planned: boolean;
}

/** What the shell has to do. */
export type Effect =
  /** Open this connection with this cursor. */
  | { readonly type: "open"; readonly conn: number; readonly since: string | null; readonly transport: Transport }
  /** Close it with 1000; nothing of it counts any more. */
  | { readonly type: "close"; readonly conn: number }
  /** These items changed, as `feed:key`, sorted. */
  | { readonly type: "items"; readonly keys: readonly string[] }
  | Handover;

/** What a page shows of the connection. */
export type Status = "idle" | "connecting" | "live" | "moving" | "reconnecting" | "refused";

/** The connection that delivers. */
interface Current extends Attempt {
  peer: Peer;
  heardAt: number;
}

/** The effects of one step, by kind, so that they leave in the promised order. */
interface Effects {
  opens: Attempt[];
  closes: number[];
  items: string[];
  handover: Handover | null;
}

/**
 * The client's state machine, sans I/O: an event and the time go in, effects come out. `docs/protocol.md` section 3 has the rules,
 * `tests/vectors/` the cases; `services/shared/protocol` has its twin.
 */
export class Machine {
  /** What was learned. */
  readonly values: Values;
  readonly #rounds = new Rounds();
  #started = false;
  #refused: string | null = null;
  #replica: string | null = null;
  #current: Current | null = null;
  #liveSince: number | null = null;
  #lostAt: number | null = null;
  #movingSince: number | null = null;

  /** Begins with what another one has learned, if there was one before. */
  constructor(values = new Values()) {
    this.values = values;
  }

  /** What a page shows. */
  get status(): Status {
    if (this.#refused !== null) return "refused";
    if (this.#current) return this.#movingSince === null ? "live" : "moving";
    if (!this.#started) return "idle";
    return this.#lostAt === null ? "connecting" : "reconnecting";
  }

  /** Who serves, or served last; null before the first. */
  get replica(): string | null {
    return this.#replica;
  }

  /** What carries the current connection; null without one. */
  get transport(): Transport | null {
    return this.#current?.transport ?? null;
  }

  /** Why the server refused. */
  get reason(): string | null {
    return this.#refused;
  }

  /** When the machine wants its next `tick`; null: never. */
  get wakeAt(): number | null {
    const times = this.#rounds.candidates.map((candidate) => candidate.deadline);
    const { nextAt, joinAt, probeAt } = this.#rounds;
    times.push(...[nextAt, joinAt, probeAt].filter((at) => at !== null));
    if (this.#current) times.push(silentAt(this.#current));
    return times.length > 0 ? Math.min(...times) : null;
  }

  /** Takes one event. `now` is in whole ms of any monotonic clock, `random` in [0, 1). */
  step(event: Event, now: number, random: number): Effect[] {
    const effects: Effects = { opens: [], closes: [], items: [], handover: null };
    switch (event.type) {
      case "start":
        this.#start(now, effects);
        break;
      case "frame":
        this.#frame(event.conn, event.frame, now, random, effects);
        break;
      case "closed":
        this.#closed(event, now, random, effects);
        break;
      case "tick":
      case "nudge": {
        this.#expire(now, random, effects);
        const { nextAt } = this.#rounds;
        if (nextAt !== null && (event.type === "nudge" || nextAt <= now)) this.#begin(now, effects);
        const { joinAt, probeAt } = this.#rounds;
        if (joinAt !== null && joinAt <= now) effects.opens.push(...this.#rounds.join(now));
        if (probeAt !== null && probeAt <= now) effects.opens.push(this.#rounds.probe(now));
        break;
      }
      case "stop":
        effects.closes.push(...this.#end());
        this.#refused = null;
        break;
    }
    return this.#list(effects);
  }

  #list({ opens, closes, items, handover }: Effects): Effect[] {
    const list: Effect[] = opens.map((open) => ({ type: "open", since: this.values.cursor, ...open }));
    for (const conn of closes.sort((a, b) => a - b)) list.push({ type: "close", conn });
    if (items.length > 0) list.push({ type: "items", keys: items });
    if (handover) list.push(handover);
    return list;
  }

  #start(now: number, effects: Effects): void {
    if (this.#started) return;
    this.#started = true;
    this.#refused = null;
    this.#rounds.failures = 0;
    this.#begin(now, effects);
  }

  #begin(now: number, effects: Effects): void {
    effects.opens.push(...this.#rounds.begin(now));
  }

  #fail(now: number, random: number, conn: number, failure: Failure): void {
    // Beside a connection that serves and asked for nothing there is no other attempt.
    this.#rounds.fail(now, random, conn, failure, this.#current !== null && this.#movingSince === null);
  }

  /** Closes what has not answered in time, and the current connection if it has been silent for too long (rule 8). */
  #expire(now: number, random: number, effects: Effects): void {
    for (const { conn } of this.#rounds.candidates.filter((candidate) => candidate.deadline <= now)) {
      effects.closes.push(conn);
      this.#fail(now, random, conn, GIVEN_UP);
    }
    if (this.#current && silentAt(this.#current) <= now) {
      effects.closes.push(this.#current.conn);
      this.#rounds.countSilence();
      this.#lose(now, random, null, effects);
    }
  }

  /** Rules 4 and 5: the current connection is gone. */
  #lose(now: number, random: number, wait: number | null, effects: Effects): void {
    const stable = this.#liveSince !== null && now - this.#liveSince >= STABLE;
    this.#current = null;
    this.#movingSince = null;
    this.#liveSince = null;
    this.#lostAt = now;
    const delay = this.#rounds.delayAfterLoss(random, stable);
    if (this.#rounds.nextAt !== null) this.#begin(now, effects);
    else if (!this.#rounds.busy) this.#rounds.nextAt = now + (wait ?? delay);
  }

  #closed(event: Extract<Event, { type: "closed" }>, now: number, random: number, effects: Effects): void {
    const { conn, code, reason } = event;
    const isCurrent = this.#current?.conn === conn;
    if (!isCurrent && !this.#candidate(conn)) return; // rule 11
    if (code === CLOSE.policy && (isCurrent || !this.#current)) {
      effects.closes.push(...this.#end().filter((other) => other !== conn));
      this.#refused = reason;
      return;
    }
    const wait = code === CLOSE.tryLater ? parseRetry(reason) : null;
    if (isCurrent) this.#lose(now, random, wait, effects);
    else this.#fail(now, random, conn, { code, wait });
  }

  #frame(conn: number, frame: Frame, now: number, random: number, effects: Effects): void {
    const candidate = this.#candidate(conn);
    if (this.#current?.conn === conn) this.#frameOfCurrent(this.#current, frame, now, random, effects);
    else if (candidate) this.#frameOfCandidate(candidate, frame, now, random, effects);
  }

  #frameOfCurrent(current: Current, frame: Frame, now: number, random: number, effects: Effects): void {
    current.heardAt = now;
    switch (frame?.type) {
      case "hello": {
        const peer = peerOf(frame);
        if (this.values.isPast(peer.history)) {
          effects.closes.push(current.conn);
          this.#lose(now, random, null, effects);
        } else {
          this.#replica = peer.replica;
          current.peer = peer;
        }
        break;
      }
      case "move":
        if (this.#movingSince === null) {
          this.#movingSince = now;
          // A probe under way is left to answer: it leads away from this replica too.
          if (!this.#rounds.busy) this.#begin(now, effects);
        }
        break;
      case "set":
        effects.items = this.values.apply(now, current.peer.history, frame);
        break;
      case "beat":
        this.values.refresh(now, frame);
        break;
      case undefined: // it proves life, no more
    }
  }

  #frameOfCandidate(candidate: Candidate, frame: Frame, now: number, random: number, effects: Effects): void {
    const { conn, transport, openedAt } = candidate;
    const isHello = frame?.type === "hello";
    const peer = isHello ? peerOf(frame) : candidate.peer;
    if (!peer || !(isHello || frame?.type === "set" || frame?.type === "beat")) return;
    // Asked again after the hello: the current connection may have told of a later timeline since.
    if (this.values.isPast(peer.history)) {
      effects.closes.push(conn);
      this.#fail(now, random, conn, GIVEN_UP);
    } else if (isHello) {
      candidate.deadline = now + ANSWER;
      candidate.peer = peer;
    } else {
      const current = { conn, transport, peer, heardAt: now };
      this.#switch(current, openedAt, now, random, effects);
      this.#frameOfCurrent(current, frame, now, random, effects);
    }
  }

  /** Rule 3: this one delivers from now on. */
  #switch(next: Current, openedAt: number, now: number, random: number, effects: Effects): void {
    const { replica } = next.peer;
    const old = this.#current;
    if (this.#replica !== null) {
      // A probe was neither asked for nor caused by a loss: it began with itself.
      const since = this.#movingSince ?? this.#lostAt ?? openedAt;
      effects.handover = { type: "handover", from: this.#replica, to: replica, ms: now - since, planned: old !== null };
    }
    if (old) effects.closes.push(old.conn);
    effects.closes.push(...this.#rounds.won(now, random, next));
    this.#current = next;
    this.#replica = replica;
    this.#liveSince ??= now;
    this.#movingSince = null;
    this.#lostAt = null;
  }

  /** Ends every connection and gives their numbers; what was learned stays. */
  #end(): number[] {
    const closes = this.#rounds.end();
    if (this.#current) closes.push(this.#current.conn);
    this.#started = false;
    this.#replica = null;
    this.#current = null;
    this.#liveSince = null;
    this.#lostAt = null;
    this.#movingSince = null;
    return closes;
  }

  #candidate(conn: number): Candidate | undefined {
    return this.#rounds.candidates.find((candidate) => candidate.conn === conn);
  }
}

function peerOf({ replica, store, timeline, beatMs }: Hello): Peer {
  return { replica, history: { store, timeline }, beatMs };
}

/** When the silence of a connection counts as its loss. */
function silentAt({ heardAt, peer }: Current): number {
  return heardAt + Math.floor(peer.beatMs * SILENCE_BEATS);
}
