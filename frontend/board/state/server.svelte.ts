import { ageOf, type Known } from "../../client/index.js";
import { Trail } from "./trail.js";
import { number, percent } from "./words.js";

/** From this age on a server's values look stale, ms. One comes each second: five that are missing are no accident. */
export const STALE = 5_000;

/** What a card shows of one server. Numbers are whole percents, so that a card changes only when what it shows does. */
export class Server {
  readonly id: string;
  /** The processor's last minutes. Not rounded. */
  readonly trail = new Trail();
  /** Null: not told. */
  cpu = $state<number | null>(null);
  memory = $state<number | null>(null);
  disk = $state<number | null>(null);
  /** The second of the newest value, in Unix time: it changes with each value. */
  second = $state(0);
  /** Between what the processor was in the {@link trail}: `3 to 45 %`. */
  range = $state<string | null>(null);
  /** `12 s`: how old the values are; null while they are fresh. */
  age = $state<string | null>(null);
  /** It is no longer among the servers, and its card about to leave. */
  gone = $state(false);
  #known: Known | null = null;
  /** Time of the page's clock at which the newest value was true. */
  #seenAt = 0;

  constructor(id: string) {
    this.id = id;
  }

  /** Takes what was pushed, which was true at `seenAt`, a time of the page's clock. */
  take(known: Known, seenAt: number): void {
    if (known === this.#known) return;
    this.#known = known;
    this.#seenAt = seenAt;
    const { cpu_usage: cpu, memory_usage: memory, disk_usage: disk } = fields(known.value);
    this.cpu = whole(cpu);
    this.memory = whole(memory);
    this.disk = whole(disk);
    if (isNumber(cpu)) this.trail.push(known.version, cpu);
    const { range } = this.trail;
    this.range = range && `${number(Math.round(range[0]))} to ${percent(Math.round(range[1]))}`;
    this.second = known.version;
  }

  /** Finds out how old the values are, and gives when that changes. */
  look(now: number): number | null {
    const { text, changesAt } = ageOf(this.#seenAt, now, { old: STALE });
    this.age = text;
    return changesAt;
  }
}

function fields(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function isNumber(value: unknown): value is number {
  return typeof value === "number";
}

function whole(value: unknown): number | null {
  return isNumber(value) ? Math.round(value) : null;
}
