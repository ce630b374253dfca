import { afterEach, expect, test, vi } from "vitest";
import { getTexts, postText, type ApiError } from "../state/api.js";
import { uuid } from "../../client/index.js";
import { lengthOf, texts, time } from "../state/words.js";

afterEach(() => {
  vi.unstubAllGlobals();
});

function answering(status: number, body: unknown, headers: Record<string, string> = {}): ReturnType<typeof vi.fn> {
  const fetch = vi.fn(() => Promise.resolve(new Response(typeof body === "string" ? body : JSON.stringify(body), { status, headers })));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

const post = (): Promise<unknown> => postText("id", "text", new AbortController().signal);
const failure = (): Promise<Pick<ApiError, "message" | "again" | "retryAfter">> =>
  post().then(
    () => expect.unreachable(),
    (error: unknown) => {
      const { message, again, retryAfter } = error as ApiError;
      return { message, again, retryAfter };
    },
  );

test("a stored text is given back", async () => {
  const fetch = answering(201, { id: "id", text: "text", created_at: "2026-11-21T10:00:00Z" });
  expect(await post()).toMatchObject({ id: "id" });
  expect(fetch).toHaveBeenCalledWith("save", expect.objectContaining({ method: "POST", body: '{"id":"id","text":"text"}' }));
});

test("the cursor of the next page is sent as it came", async () => {
  const fetch = answering(200, { texts: [], next: null });
  await getTexts("a+b/c=");
  expect(fetch).toHaveBeenCalledWith("all?before=a%2Bb%2Fc%3D", expect.anything());
});

test("refusals are final and said as a sentence", async () => {
  answering(422, { error: { code: "text_empty", message: "the text is empty" } });
  expect(await failure()).toEqual({ message: "The text is empty.", again: false, retryAfter: 0 });
  answering(413, "<html>too large</html>");
  expect(await failure()).toEqual({ message: "The server answered with status 413.", again: false, retryAfter: 0 });
});

test("an absent database, a broken gateway and a cut answer may do better later", async () => {
  answering(503, { error: { code: "database_unavailable", message: "…" } }, { "retry-after": "1" });
  expect(await failure()).toEqual({ message: "The database is away.", again: true, retryAfter: 1_000 });
  answering(502, "bad gateway", { "retry-after": "Sat, 21 Nov 2026 10:00:00 GMT" });
  expect(await failure()).toMatchObject({ again: true, retryAfter: 0 });
  answering(201, '{"id":');
  expect(await failure()).toMatchObject({ again: true });
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("failed to fetch")));
  expect(await failure()).toMatchObject({ message: "The server cannot be reached.", again: true });
});

test("a UUID can be made without a secure context", () => {
  const bytes = { getRandomValues: <T extends ArrayBufferView | null>(array: T): T => (array as unknown as Uint8Array).fill(0xff) as unknown as T };
  expect(uuid(bytes)).toBe("ffffffff-ffff-4fff-bfff-ffffffffffff");
  expect(uuid()).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
});

test("words", () => {
  expect(lengthOf("  👩‍🚀ü \n")).toBe(4); // an astronaut is three code points
  expect([texts(1, "new "), texts(1_234)]).toEqual(["1 new text", "1,234 texts"]);
  const noon = new Date(2026, 10, 21, 12, 4, 33);
  expect(time(noon, noon)).toBe("12:04:33");
  expect(time(noon, new Date(2026, 10, 22))).toBe("21 Nov 2026, 12:04");
});
