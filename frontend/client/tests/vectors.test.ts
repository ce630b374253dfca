import { describe, expect, test } from "vitest";
import { readFrame } from "../frames.js";
import { Machine, type Event } from "../machine.js";

/** As `docs/protocol.md` section 4 describes them. */
interface Case {
  name: string;
  steps: {
    at: number;
    event: { type: Event["type"]; conn?: number; frame?: unknown; code?: number; reason?: string };
    random?: number;
    effects?: Record<string, unknown>[];
    state?: Record<string, unknown>;
  }[];
}

const files = import.meta.glob<Case[]>("../../../tests/vectors/*.json", { eager: true, import: "default" });

test("there are vectors", () => {
  expect(Object.keys(files)).not.toHaveLength(0);
});

describe.each(Object.entries(files))("%s", (_path, cases) => {
  test.each(cases)("$name", ({ steps }) => {
    const machine = new Machine();
    for (const [index, { at, event, random = 0, effects = [], state = {} }] of steps.entries()) {
      const done = machine.step(eventOf(event), at, random);
      expect(done, `effects of step ${index}`).toEqual(effects.map(complete));
      expect(stateOf(machine), `state after step ${index}`).toMatchObject(state);
      // toMatchObject lets a map have more entries than expected; a vector means all of them.
      if ("items" in state) expect(stateOf(machine)["items"]).toEqual(state["items"]);
      if ("knownAt" in state) expect(stateOf(machine)["knownAt"]).toEqual(state["knownAt"]);
    }
  });
});

function eventOf({ type, conn = 0, frame, code = 0, reason = "" }: Case["steps"][number]["event"]): Event {
  if (type === "frame") return { type, conn, frame: readFrame(frame) };
  if (type === "closed") return { type, conn, code, reason };
  return { type };
}

/** A vector that says nothing of it means a WebSocket. */
function complete(effect: Record<string, unknown>): Record<string, unknown> {
  return effect["type"] === "open" ? { transport: "ws", ...effect } : effect;
}

function stateOf({ status, replica, reason, transport, wakeAt, values }: Machine): Record<string, unknown> {
  const { database, cursor, history } = values;
  const items = Object.fromEntries(values.items);
  const knownAt = Object.fromEntries(values.knownAt);
  return { status, replica, reason, transport, wakeAt, database, cursor, history, items, knownAt };
}
