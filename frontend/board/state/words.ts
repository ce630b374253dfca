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

/** `12:04:33` today, `3 Nov 2026, 12:04` before. */
export function time(date: Date, now = new Date()): string {
  return (date.toDateString() === now.toDateString() ? timeOfDay : dayAndTime).format(date);
}

/** `1 new text`, `3 new texts`. */
export function texts(value: number, kind = ""): string {
  return `${number(value)} ${kind}${value === 1 ? "text" : "texts"}`;
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
