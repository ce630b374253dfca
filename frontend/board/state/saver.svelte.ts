import { backoff } from "../../client/backoff.js";
import { ApiError, postText, type Text } from "./api.js";
import { uuid } from "../../client/index.js";

/** What saving needs of the world. Tests bring their own. */
export interface SaverWorld {
  post(id: string, text: string, signal: AbortSignal): Promise<Text>;
  uuid(): string;
  random(): number;
  /** Ends early if the signal is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

const world: SaverWorld = { post: postText, uuid, random: Math.random, sleep };

/** Saves one text at a time and does not give up while that could still succeed. */
export class Saver {
  /** `retrying`: at least one attempt has failed. */
  phase = $state<"idle" | "saving" | "retrying">("idle");
  /** Why the text was not taken; it will not be tried again. */
  error = $state<string | null>(null);
  /** Why the last attempt failed, while others follow. */
  trouble = $state<string | null>(null);

  readonly #world: SaverWorld;
  #cancelled: AbortController | null = null;
  /** An attempt whose end is unknown keeps its id: saving the same text again cannot store it twice. */
  #open: { readonly id: string; readonly text: string } | null = null;

  constructor(parts: SaverWorld = world) {
    this.#world = parts;
  }

  /** Saves a text. Gives the stored row; null if it was refused, cancelled, or another one is being saved. */
  async save(text: string): Promise<Text | null> {
    if (this.phase !== "idle") return null;
    if (this.#open?.text !== text) this.#open = { id: this.#world.uuid(), text };
    const { id } = this.#open;
    const { signal } = (this.#cancelled = new AbortController());
    this.phase = "saving";
    this.error = null;
    try {
      return await this.#attempt(id, text, signal);
    } finally {
      this.phase = "idle";
      this.trouble = null;
    }
  }

  /** Stops trying. The text may have been stored by an attempt that was not answered. */
  cancel(): void {
    this.#cancelled?.abort();
  }

  /** Takes back the last refusal: the text has changed since. */
  forgive(): void {
    this.error = null;
  }

  async #attempt(id: string, text: string, signal: AbortSignal): Promise<Text | null> {
    for (let failures = 0; ; failures += 1) {
      try {
        const stored = await this.#world.post(id, text, signal);
        this.#open = null;
        return stored;
      } catch (error) {
        if (signal.aborted) return null;
        const failure = error instanceof ApiError ? error : new ApiError(String(error), false);
        if (!failure.again) {
          this.#open = null;
          this.error = failure.message;
          return null;
        }
        this.phase = "retrying";
        this.trouble = failure.message;
        await this.#world.sleep(failure.retryAfter + backoff(failures, this.#world.random()), signal);
        if (isOver(signal)) return null;
      }
    }
  }
}

/** Read anew: the compiler takes what it knew before the wait for granted. */
function isOver(signal: AbortSignal): boolean {
  return signal.aborted;
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
