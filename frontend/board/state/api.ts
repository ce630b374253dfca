/** The two requests of the page. Counts never come this way: they are pushed. */

/** A stored text. */
export interface Text {
  readonly id: string;
  readonly text: string;
  /** RFC 3339. */
  readonly created_at: string;
}

/** One page of texts, newest first. */
export interface Page {
  readonly texts: readonly Text[];
  /** What to send as `before` for the next page; null on the last one. */
  readonly next: string | null;
}

/** Why a request did not do what was wanted. The message is meant for the reader. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** Whether the same request may succeed later. */
  readonly again: boolean;
  /** How long the server asks to wait before that, ms. */
  readonly retryAfter: number;

  constructor(message: string, again: boolean, retryAfter = 0) {
    super(message);
    this.again = again;
    this.retryAfter = retryAfter;
  }
}

/** The server answers within 5 s; 2 s more for the network and for a load balancer that tries another replica. */
const TIMEOUT = 7_000;

/** Stores a text. The id makes repeating safe: the same id and text are stored once. */
export async function postText(id: string, text: string, signal: AbortSignal): Promise<Text> {
  const body = JSON.stringify({ id, text });
  const headers = { "content-type": "application/json" };
  return (await request("save", { method: "POST", headers, body }, signal)) as Text;
}

/** Reads a page of texts, from the newest on or from the `next` of an earlier page. */
export async function getTexts(before: string | null): Promise<Page> {
  const query = before === null ? "" : `?before=${encodeURIComponent(before)}`;
  return (await request(`all${query}`, {}, new AbortController().signal)) as Page;
}

async function request(path: string, init: RequestInit, cancelled: AbortSignal): Promise<unknown> {
  const signal = AbortSignal.any([cancelled, AbortSignal.timeout(TIMEOUT)]);
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(path, { ...init, signal });
    body = await response.json().catch(() => null);
    signal.throwIfAborted(); // a body that was cut off
  } catch {
    throw new ApiError(signal.aborted ? "The server does not answer." : "The server cannot be reached.", true);
  }
  if (response.ok && body !== null) return body;
  const { status, headers } = response;
  const again = status >= 500 || status === 429 || status === 408 || response.ok;
  const seconds = Number(headers.get("retry-after") ?? 0);
  throw new ApiError(messageOf(body, status), again, Number.isFinite(seconds) ? seconds * 1_000 : 0);
}

/** What the server says, as a sentence. */
function messageOf(body: unknown, status: number): string {
  const { code, message } = (body as { error?: { code?: unknown; message?: unknown } } | null)?.error ?? {};
  if (code === "database_unavailable") return "The database is away.";
  if (typeof message !== "string" || message === "") return `The server answered with status ${status}.`;
  const sentence = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
