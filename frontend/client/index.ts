/** The client library: values of a Tidemark server, kept live. Importing it has no side effect. */
export { AgeClock, ageOf, duration, OLD, type Age, type Watcher } from "./ages.js";
export { Connection, type ConnectionOptions, type Snapshot } from "./connection.js";
export { browser, type Environment, type PageEvents } from "./environment.js";
export type { Database } from "./frames.js";
export { hueOf } from "./hue.js";
export { Machine, type Effect, type Event, type Handover, type Status } from "./machine.js";
export type { Transport } from "./rounds.js";
export { ANNOUNCE_EVERY, Throttle } from "./throttle.js";
export type { History, Known } from "./values.js";
export { uuid } from "./uuid.js";
export { pageVisit, Visit } from "./visit.js";
