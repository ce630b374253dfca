import { expect, test } from "vitest";
import { News } from "../state/news.js";
import { WALL_LIMIT, wallFor } from "../state/wall.js";
import { percent, servers, visitors } from "../state/words.js";

test("a percentage stays on one line, and one that is not known is a dash", () => {
  expect([0, 7, 100, null].map(percent)).toEqual(["0\u00a0%", "7\u00a0%", "100\u00a0%", "–"]);
});

test("one is not many", () => {
  expect([visitors(1), visitors(1_200), servers(1, 0), servers(100, 2)]).toEqual(["1 visitor", "1,200 visitors", "1 server", "100 servers, 2 stale"]);
});

test("what a page shows at first is no news; what has changed since is told once, in one sentence", () => {
  const news = new News();
  news.tell("texts", "7 texts stored");
  news.tell("visitors", null);
  expect(news.any).toBe(false);
  news.tell("texts", "8 texts stored");
  news.tell("visitors", "3 visitors now");
  news.tell("visitors", "4 visitors now");
  news.tell("texts", "9 texts stored");
  expect(news.take()).toBe("9 texts stored, 4 visitors now");
  expect(news.any).toBe(false);
  expect(news.take()).toBe("");
});

test("what has changed back before it was told is no news", () => {
  const news = new News();
  for (const words of ["100 servers", "100 servers, 1 stale", "100 servers"]) news.tell("servers", words);
  expect(news.any).toBe(false);
});

test.each([
  [0, { columns: 1, rows: 1, many: false }],
  [3, { columns: 1, rows: 3, many: false }],
  [12, { columns: 3, rows: 4, many: false }],
  [24, { columns: 4, rows: 6, many: false }],
  [25, { columns: 6, rows: 5, many: true }],
  [100, { columns: 8, rows: 13, many: true }],
  [1_000, { columns: 8, rows: 15, many: true }],
])("%i servers fit a wall", (count, wall) => {
  expect(wallFor(count)).toEqual(wall);
  expect(wall.columns * wall.rows).toBeGreaterThanOrEqual(Math.min(count, WALL_LIMIT));
});
