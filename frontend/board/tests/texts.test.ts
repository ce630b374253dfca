import { expect, test } from "vitest";
import { ApiError, type Page, type Text } from "../state/api.js";
import { Texts } from "../state/texts.svelte.js";

/** Rows `from` down to `to`, named by their number. */
function rows(from: number, to: number): Text[] {
  return Array.from({ length: Math.max(0, from - to + 1) }, (_, index) => row(from - index));
}

function row(number: number): Text {
  return { id: String(number), text: `text ${number}`, created_at: "2026-11-21T10:00:00Z" };
}

/** A server with texts numbered from 1, in pages of three. */
function server(stored: number): { texts: Texts; asked: (string | null)[]; set: (stored: number) => void; fail: (error: ApiError | null) => void } {
  const asked: (string | null)[] = [];
  let newest = stored;
  let failure: ApiError | null = null;
  const get = (before: string | null): Promise<Page> => {
    asked.push(before);
    if (failure) return Promise.reject(failure);
    const from = before === null ? newest : Number(before) - 1;
    const to = Math.max(1, from - 2);
    return Promise.resolve({ texts: rows(from, to), next: to > 1 ? String(to) : null });
  };
  return {
    texts: new Texts(get),
    asked,
    set: (value) => (newest = value),
    fail: (error) => (failure = error),
  };
}

const numbers = (texts: Texts): number[] => texts.rows.map(({ id }) => Number(id));

test("a count that grows is offered, not fetched; taking the offer joins the pages", async () => {
  const { texts, asked, set } = server(5);
  texts.countIs(5);
  await texts.newest();
  await texts.older();
  expect([numbers(texts), texts.more, texts.added]).toEqual([[5, 4, 3, 2, 1], false, 0]);
  set(7);
  texts.countIs(7);
  expect([texts.added, asked.length]).toEqual([2, 2]);
  await texts.newest();
  expect([numbers(texts), texts.more, texts.added]).toEqual([[7, 6, 5, 4, 3, 2, 1], false, 0]);
});

test("more new texts than a page holds start the list anew, so that it has no gap", async () => {
  const { texts, set } = server(5);
  texts.countIs(5);
  await texts.newest();
  set(9);
  texts.countIs(9);
  await texts.newest();
  expect([numbers(texts), texts.more, texts.added]).toEqual([[9, 8, 7], true, 0]);
});

test("the count may come after the list, or late", async () => {
  const { texts, set } = server(5);
  await texts.newest();
  texts.countIs(5);
  expect(texts.added).toBe(0);
  texts.countIs(6);
  expect(texts.added).toBe(1);

  const whole = server(2);
  whole.texts.countIs(1); // the list is ahead of the count
  await whole.texts.newest();
  whole.texts.countIs(2);
  expect(whole.texts.added).toBe(0);
  set(0);
});

test("own texts are on top at once and never offered, whichever comes first: the answer or the count", async () => {
  const { texts, set } = server(5);
  texts.countIs(5);
  await texts.newest();
  texts.pending += 1;
  set(6);
  texts.countIs(6);
  expect(texts.added).toBe(0);
  texts.addOwn(row(6));
  texts.pending -= 1;
  expect([numbers(texts), texts.added]).toEqual([[6, 5, 4, 3], 0]);
  texts.addOwn(row(7));
  expect(texts.added).toBe(0);
  texts.countIs(8);
  expect(texts.added).toBe(1);
  texts.addOwn(row(7));
  expect(numbers(texts)).toEqual([7, 6, 5, 4, 3]);
});

test("an own text that is saved while a page is being read is neither lost nor counted twice", async () => {
  const { texts } = server(2);
  texts.countIs(2);
  const reading = texts.newest();
  texts.addOwn(row(3));
  await reading;
  texts.countIs(3);
  expect([numbers(texts), texts.added]).toEqual([[3, 2, 1], 0]);
});

test("a count that falls means that the list has changed; it is read anew when asked for", async () => {
  const { texts, set, asked } = server(5);
  texts.countIs(5);
  await texts.newest();
  set(1);
  texts.countIs(1);
  expect([texts.shrunk, texts.added, asked.length]).toEqual([true, 0, 1]);
  await texts.newest();
  expect([texts.shrunk, numbers(texts)]).toEqual([false, [1]]);
});

test("a failure is told, what was loaded stays, and a second try works", async () => {
  const { texts, fail } = server(5);
  fail(new ApiError("The database is away.", true));
  await texts.newest();
  expect([texts.failure, texts.loaded]).toEqual([{ wish: "newest", message: "The database is away." }, false]);
  fail(null);
  await texts.newest();
  expect([texts.failure, numbers(texts)]).toEqual([null, [5, 4, 3]]);
  fail(new ApiError("The server cannot be reached.", true));
  await texts.older();
  expect([texts.failure?.wish, numbers(texts), texts.more]).toEqual(["older", [5, 4, 3], true]);
});

test("two wishes at once are one request", async () => {
  const { texts, asked } = server(5);
  await Promise.all([texts.newest(), texts.newest()]);
  expect(asked).toHaveLength(1);
});
