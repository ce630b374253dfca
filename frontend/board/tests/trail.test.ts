import { expect, test } from "vitest";
import { HOLE, SPAN, Trail } from "../state/trail.js";

function trailOf(...points: [second: number, value: number][]): Trail {
  const trail = new Trail();
  for (const [second, value] of points) trail.push(second, value);
  return trail;
}

test("a trail keeps the last five minutes and no more", () => {
  const trail = new Trail();
  for (let second = 1; second <= 1_000; second += 1) trail.push(second, second / 10);
  const [seconds, values] = trail.columns();
  expect(seconds).toHaveLength(SPAN);
  expect([seconds[0], seconds.at(-1)]).toEqual([701, 1_000]);
  expect([values[0], values.at(-1)]).toEqual([70.1, 100]);
  expect(trail.range).toEqual([70.1, 100]);
});

test("a silence is a hole, a skipped second is not", () => {
  const seen = trailOf([100, 1], [102, 2], [102 + HOLE, 3], [108 + HOLE, 4]);
  expect(seen.columns()).toEqual([
    [100, 102, 107, 108, 113],
    [1, 2, 3, null, 4],
  ]);
});

test("after a silence that is longer than a trail only the new value is left", () => {
  expect(trailOf([100, 1], [101, 2], [101 + SPAN, 3]).columns()).toEqual([[401], [3]]);
});

test("a time that begins again earlier takes what lies after it away", () => {
  expect(trailOf([100, 1], [101, 2], [102, 3], [101, 9]).columns()).toEqual([
    [100, 101],
    [1, 9],
  ]);
});

test("without a value there is no range, and nothing to draw", () => {
  expect(new Trail().range).toBeNull();
  expect(new Trail().columns()).toEqual([[], []]);
});
