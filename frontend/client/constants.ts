/** The numbers of `tidemark.v1`, as `docs/protocol.md` names them. Times are milliseconds. */

/** The WebSocket sub-protocol. */
export const PROTOCOL = "tidemark.v1";

/** How long an attempt may take to say `hello`, and again to send its first `set` or `beat`. */
export const ANSWER = 1_000;
/** After a silence one more connection joins the round each time this has passed without a `hello`. */
export const JOIN = 250;
/** So many connections join at most, within two seconds: with the two of the beginning, one of ten has to meet a live replica. */
export const JOINS = 8;
/** Longest first wait after a loss; it doubles with each failure. */
export const BACKOFF_BASE = 250;
/** Longest wait between rounds. */
export const BACKOFF_CAP = 10_000;
/** How long a connection must have lived before earlier failures are forgotten. */
export const STABLE = 10_000;
/** So many WebSockets that failed in a row are a way that lets none through: one may be a replica that dies, two a race for it. */
export const FALLBACK = 3;
/** Longest time on SSE before a WebSocket is probed for the first time: replicas that restarted are back by then. */
export const PROBE_FIRST = 15_000;
/** Longest time between later probes: a request a minute is nothing beside the frames. */
export const PROBE = 60_000;
/** This many beats without a frame are a loss: two may be late, three are not. */
export const SILENCE_BEATS = 2.5;
/** Longest wait that a server can ask for: a wrong number in a reason must not silence a page for ever. */
export const MAX_RETRY = 60_000;

/** Close codes, of a WebSocket or in the `close` event of a stream. */
export const CLOSE = {
  /** The client is done. */
  done: 1000,
  /** What a browser reports when no close frame came. */
  abnormal: 1006,
  /** Against the rules; final. */
  policy: 1008,
  /** Not now: wait as the reason says. */
  tryLater: 1013,
} as const;
