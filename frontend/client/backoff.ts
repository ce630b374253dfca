import { BACKOFF_BASE, BACKOFF_CAP, MAX_RETRY } from "./constants.js";

/**
 * Full jitter: any time between nothing and a ceiling that doubles with each failure, so that clients that lost the same
 * replica do not come back together.
 */
export function backoff(failures: number, random: number): number {
  return Math.floor(random * Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** failures));
}

/** Between half of it and all of it: clients that fell back together do not probe together. */
export function spread(ms: number, random: number): number {
  return Math.floor((ms * (1 + random)) / 2);
}

/** The wait in the reason of a 1013, `retry=250`; null if there is none. */
export function parseRetry(reason: string): number | null {
  const digits = /^retry=(\d+)$/.exec(reason)?.[1];
  return digits === undefined ? null : Math.min(Number(digits), MAX_RETRY);
}
