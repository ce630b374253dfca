import { describe, expect, test } from "vitest";
import { AgeClock, ageOf, duration } from "../ages.js";
import { backoff, parseRetry } from "../backoff.js";
import { monotonicClock } from "../environment.js";
import { parseFrame } from "../frames.js";
import { hueOf } from "../hue.js";
import { Throttle } from "../throttle.js";
import { World } from "./world.js";

test("waits double up to the cap, and are rounded down", () => {
  expect([0, 1, 5, 6, 60].map((failures) => backoff(failures, 0.999))).toEqual([249, 499, 7_992, 9_990, 9_990]);
  expect(backoff(3, 0)).toBe(0);
});

test("a wait in a reason is read and bounded", () => {
  expect(["retry=250", "retry=999999999", "retry=-1", "retry=", "later"].map(parseRetry)).toEqual([250, 60_000, null, null, null]);
});

describe("frames", () => {
  test("missing parts have their defaults", () => {
    expect(parseFrame('{"type":"beat"}')).toEqual({ type: "beat", ageMs: {}, database: "up" });
    const set = parseFrame('{"type":"set","cursor":"c","items":[{"feed":"texts","version":1,"value":{}}],"colour":"blue"}');
    expect(set).toMatchObject({ reset: false, complete: [], items: [{ key: "" }] });
  });

  test.each([
    "no json",
    "[]",
    '{"type":"song"}',
    '{"type":"hello","replica":"r","store":"s","timeline":"1","beatMs":5000}',
    '{"type":"set","items":[]}',
    '{"type":"set","cursor":"c","items":[{"feed":"texts","version":-1,"value":{}}]}',
    '{"type":"set","cursor":"c","items":[{"feed":"texts","version":1}]}',
    '{"type":"beat","ageMs":{"texts":"2"}}',
    '{"type":"beat","database":"sideways"}',
    '{"type":"move"}',
  ])("%s is none of ours", (text) => {
    expect(parseFrame(text)).toBeNull();
  });
});

test("replicas that follow each other have hues far apart, always the same", () => {
  const apart = (a: string, b: string): number => {
    const difference = Math.abs(hueOf(a) - hueOf(b));
    return Math.min(difference, 360 - difference);
  };
  expect(hueOf("dashboard-1")).toBe(hueOf("dashboard-1"));
  expect(apart("dashboard-1", "dashboard-2")).toBeGreaterThan(90);
  expect(apart("dashboard-2", "dashboard-3")).toBeGreaterThan(90);
  expect(apart("dashboard-1", "dashboard-3")).toBeGreaterThan(60);
  for (const name of ["", "7", "dashboard-7f9c-x2", "dashboard-7f9c-pq"]) {
    expect(hueOf(name)).toBeGreaterThanOrEqual(0);
    expect(hueOf(name)).toBeLessThan(360);
  }
  expect(hueOf("dashboard-7f9c-x2")).not.toBe(hueOf("dashboard-7f9c-pq"));
});

test("the clock sees a sleep in which the steady clock stood still, and no small change of the wall clock", () => {
  let [steady, wall] = [0, 1_000_000];
  const now = monotonicClock(
    () => steady,
    () => wall,
  );
  [steady, wall] = [1_000.6, 1_001_000];
  expect(now()).toBe(1_000);
  wall += 3_600_000;
  expect(now()).toBe(3_601_000);
  wall -= 7_200_000;
  expect(now()).toBe(3_601_000);
  [steady, wall] = [steady + 500, wall + 1_900];
  expect(now()).toBe(3_601_500);
});

describe("ages", () => {
  test("a young value says nothing; an old one, or one of an absent database, says how old", () => {
    expect(ageOf(undefined, 5_000)).toEqual({ text: null, changesAt: null });
    expect(ageOf(1_000, 11_000)).toEqual({ text: null, changesAt: 11_001 });
    expect(ageOf(1_000, 11_001)).toEqual({ text: "10 s", changesAt: 12_000 });
    expect(ageOf(1_000, 6_001, { old: 5_000 })).toEqual({ text: "5 s", changesAt: 7_000 });
    expect(ageOf(1_000, 1_400, { away: true })).toEqual({ text: "0 s", changesAt: 2_000 });
    expect(ageOf(1_000, 900, { away: true })).toEqual({ text: "0 s", changesAt: 2_000 });
  });

  test("are written short", () => {
    expect([59, 60, 200, 3_600, 7_500, 90_000].map(duration)).toEqual(["59 s", "1 min", "3 min 20 s", "1 h", "2 h 5 min", "1 d"]);
  });

  test("one timer wakes only those whose look changes", () => {
    const world = new World();
    const clock = new AgeClock(world);
    const asked = { young: 0, old: 0 };
    clock.refresh((now) => {
      asked.young += 1;
      return ageOf(0, now).changesAt;
    });
    const old = (now: number): number | null => {
      asked.old += 1;
      return ageOf(-20_000, now).changesAt;
    };
    clock.refresh(old);
    expect(world.timers.size).toBe(1);
    world.pass(3_000);
    expect(asked).toEqual({ young: 1, old: 4 });
    clock.remove(old);
    world.pass(3_000);
    expect(asked).toEqual({ young: 1, old: 4 });
  });
});

test("announcements come at once, then at most one per interval, the newest", () => {
  const world = new World();
  const said: number[] = [];
  const throttle = new Throttle<number>((value) => said.push(value), 10_000, world);
  for (const value of [1, 2, 3]) throttle.push(value);
  world.pass(9_999);
  expect(said).toEqual([1]);
  world.pass(1);
  expect(said).toEqual([1, 3]);
  world.pass(10_000);
  throttle.push(4);
  expect(said).toEqual([1, 3, 4]);
  throttle.push(5);
  throttle.stop();
  world.pass(20_000);
  expect(said).toEqual([1, 3, 4]);
});
