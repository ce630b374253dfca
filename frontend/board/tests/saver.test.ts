import { beforeEach, describe, expect, test } from "vitest";
import { ApiError, type Text } from "../state/api.js";
import { Saver } from "../state/saver.svelte.js";

/** One request, to be answered by the test. */
interface Attempt {
  id: string;
  text: string;
  answer: (row: Text) => void;
  fail: (error: unknown) => void;
}

let attempts: Attempt[];
let waits: number[];
let saver: Saver;

beforeEach(() => {
  attempts = [];
  waits = [];
  let ids = 0;
  saver = new Saver({
    uuid: () => `id-${(ids += 1)}`,
    random: () => 0.5,
    post: (id, text, signal) =>
      new Promise((answer, fail) => {
        attempts.push({ id, text, answer, fail });
        signal.addEventListener("abort", () => {
          fail(new ApiError("cancelled", true));
        });
      }),
    sleep: (ms) => {
      waits.push(ms);
      return Promise.resolve();
    },
  });
});

const row = (id: string, text: string): Text => ({ id, text, created_at: "2026-11-21T10:00:00Z" });

/** Lets everything that is ready happen. */
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

test("a text is sent once, and the stored row comes back", async () => {
  const saved = saver.save("hello");
  expect(saver.phase).toBe("saving");
  attempts[0]?.answer(row("id-1", "hello"));
  expect(await saved).toEqual(row("id-1", "hello"));
  expect(saver.phase).toBe("idle");
  expect(attempts).toHaveLength(1);
});

test("while one text is being saved a second save does nothing", async () => {
  void saver.save("hello");
  expect(await saver.save("hello")).toBeNull();
  expect(attempts).toHaveLength(1);
});

describe("what may succeed later", () => {
  test("is tried again with the same id, after the server's wait and a jitter that grows", async () => {
    const saved = saver.save("hello");
    attempts[0]?.fail(new ApiError("The database is away.", true, 1_000));
    await settled();
    expect([saver.phase, saver.trouble]).toEqual(["retrying", "The database is away."]);
    attempts[1]?.fail(new ApiError("The server cannot be reached.", true));
    await settled();
    attempts[2]?.answer(row("id-1", "hello"));
    expect(await saved).not.toBeNull();
    expect(attempts.map(({ id }) => id)).toEqual(["id-1", "id-1", "id-1"]);
    expect(waits).toEqual([1_125, 250]);
    expect([saver.phase, saver.trouble, saver.error]).toEqual(["idle", null, null]);
  });

  test("can be cancelled; the same text keeps its id, for it may have been stored", async () => {
    const saved = saver.save("hello");
    attempts[0]?.fail(new ApiError("The server does not answer.", true));
    await settled();
    saver.cancel();
    expect(await saved).toBeNull();
    expect([saver.phase, saver.error]).toEqual(["idle", null]);
    void saver.save("hello");
    saver.cancel();
    await settled();
    void saver.save("another");
    expect(attempts.map(({ id }) => id)).toEqual(["id-1", "id-1", "id-1", "id-2"]);
  });
});

test("what is refused is not tried again; its reason is shown until the text changes", async () => {
  const saved = saver.save(" ");
  attempts[0]?.fail(new ApiError("The text is empty.", false));
  expect(await saved).toBeNull();
  expect([saver.phase, saver.error]).toEqual(["idle", "The text is empty."]);
  saver.forgive();
  expect(saver.error).toBeNull();
  void saver.save(" ");
  expect(attempts.map(({ id }) => id)).toEqual(["id-1", "id-2"]);
});
