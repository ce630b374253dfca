import { CLOSE } from "./constants.js";

/** The frames of `tidemark.v1`: one JSON object per text frame, server to client. */

/** Whether the replica can read the database. Only the bad news is written. */
export type Database = "up" | "down";

/** Who speaks, and of which history. */
export interface Hello {
  type: "hello";
  /** Name of the replica. */
  replica: string;
  /** The database's random id. */
  store: string;
  /** The database server's timeline; it grows with each failover. */
  timeline: number;
  /** Longest silence between two frames, ms. */
  beatMs: number;
}

/** One (feed, key) with its value and version. The key of a scalar feed is empty. */
export interface Item {
  feed: string;
  key: string;
  version: number;
  value: unknown;
}

/** New values of some items. */
export interface SetFrame {
  type: "set";
  /** Where the client stands after this frame. */
  cursor: string;
  /** Per subscribed feed: how long ago its value was last known to be true, ms. */
  ageMs: Readonly<Record<string, number>>;
  /** Keyed feeds that are whole in this frame. */
  complete: readonly string[];
  /** Take the items whatever their versions. */
  reset: boolean;
  database: Database;
  items: readonly Item[];
}

/** A sign of life, with the ages of the values. */
export interface Beat {
  type: "beat";
  ageMs: Readonly<Record<string, number>>;
  database: Database;
}

/** A request to connect elsewhere. The connection is closed some time later; the client does not wait for that. */
export interface Move {
  type: "move";
}

/** One frame, or `null`: something that is not a frame of ours and only proves life. */
export type Frame = Hello | SetFrame | Beat | Move | null;

/** What a stream says instead of a close frame. What has a wrong shape is an end without any code. */
export function parseClose(text: unknown): { readonly code: number; readonly reason: string } {
  const json = parseJson(text);
  if (!isRecord(json) || !isWhole(json["code"])) return { code: CLOSE.abnormal, reason: "" };
  return { code: json["code"], reason: typeof json["reason"] === "string" ? json["reason"] : "" };
}

/** Reads a frame. What has a wrong shape is `null`, as are types of later versions. */
export function parseFrame(text: unknown): Frame {
  return readFrame(parseJson(text));
}

/** {@link parseFrame} for what is JSON already. */
export function readFrame(json: unknown): Frame {
  if (!isRecord(json)) return null;
  switch (json["type"]) {
    case "hello":
      return readHello(json);
    case "set":
      return readSet(json);
    case "beat": {
      const state = readState(json);
      return state && { type: "beat", ...state };
    }
    case "move":
      return isWhole(json["graceMs"]) ? { type: "move" } : null;
    default:
      return null;
  }
}

function readHello({ replica, store, timeline, beatMs }: Record<string, unknown>): Hello | null {
  if (typeof replica !== "string" || typeof store !== "string" || !isWhole(timeline) || !isWhole(beatMs)) return null;
  return { type: "hello", replica, store, timeline, beatMs };
}

function readSet(json: Record<string, unknown>): SetFrame | null {
  const state = readState(json);
  const { cursor, complete = [], reset = false } = json;
  const items = Array.isArray(json["items"]) ? json["items"].map(readItem) : null;
  if (!state || !items || typeof cursor !== "string" || typeof reset !== "boolean") return null;
  if (!isStrings(complete) || !items.every((item) => item !== null)) return null;
  return { type: "set", cursor, complete, reset, items, ...state };
}

function readItem(json: unknown): Item | null {
  if (!isRecord(json)) return null;
  const { feed, key = "", version, value } = json;
  if (typeof feed !== "string" || typeof key !== "string" || !isWhole(version) || value === undefined) return null;
  return { feed, key, version, value };
}

/** What `set` and `beat` have in common. */
function readState({ ageMs = {}, database = "up" }: Record<string, unknown>): Pick<Beat, "ageMs" | "database"> | null {
  if (!isAges(ageMs) || (database !== "up" && database !== "down")) return null;
  return { ageMs, database };
}

function parseJson(text: unknown): unknown {
  if (typeof text !== "string") return null;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

function isRecord(json: unknown): json is Record<string, unknown> {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

function isWhole(json: unknown): json is number {
  return Number.isInteger(json) && (json as number) >= 0;
}

function isStrings(json: unknown): json is string[] {
  return Array.isArray(json) && json.every((entry) => typeof entry === "string");
}

function isAges(json: unknown): json is Record<string, number> {
  return isRecord(json) && Object.values(json).every(isWhole);
}
