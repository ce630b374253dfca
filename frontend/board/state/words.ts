import type { Status } from "../../client/index.js";

/** The page is written in English; numbers and times follow it, with 24 hours. */
const LANGUAGE = "en-GB";

const wholeNumber = new Intl.NumberFormat(LANGUAGE);
const timeOfDay = new Intl.DateTimeFormat(LANGUAGE, { timeStyle: "medium" });
const dayAndTime = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "short" });

/** `1,234`. */
export function number(value: number): string {
  return wholeNumber.format(value);
}

/** `12 %`, on one line; an en dash for what is not known: 0 would be a claim. */
export function percent(value: number | null): string {
  return value === null ? "–" : `${number(value)}\u00a0%`;
}

/** `12:04:33` today, `3 Nov 2026, 12:04` before. */
export function time(date: Date, now = new Date()): string {
  return (date.toDateString() === now.toDateString() ? timeOfDay : dayAndTime).format(date);
}

/** `1 new text`, `3 new texts`. */
export function texts(value: number, kind = ""): string {
  return `${number(value)} ${kind}${value === 1 ? "text" : "texts"}`;
}

/** `1 visitor`, `3 visitors`. */
export function visitors(value: number): string {
  return `${number(value)} ${value === 1 ? "visitor" : "visitors"}`;
}

/** `1 server`, `100 servers, 2 stale`. */
export function servers(value: number, stale: number): string {
  return `${number(value)} ${value === 1 ? "server" : "servers"}${stale === 0 ? "" : `, ${number(stale)} stale`}`;
}

/** The status line's words. A move is a kind of live. */
export const STATUS: Readonly<Record<Status, string>> = {
  idle: "Paused",
  connecting: "Connecting…",
  live: "Live",
  moving: "Live",
  reconnecting: "Reconnecting…",
  refused: "Refused",
};

/** Characters as the server counts them: Unicode code points, without the white space around. */
export function lengthOf(text: string): number {
  return Array.from(text.trim()).length;
}
