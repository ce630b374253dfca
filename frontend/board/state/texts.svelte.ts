import { ApiError, getTexts, type Page, type Text } from "./api.js";

/** What the reader waits for. */
type Wish = "newest" | "older";

/**
 * The list of texts. It asks the server only when the reader wants it to: a pushed count leads to an offer ("3 new texts"),
 * never to a request.
 */
export class Texts {
  /** Newest first. */
  rows = $state.raw<readonly Text[]>([]);
  /** Whether a first page has arrived. */
  loaded = $state(false);
  /** What is being asked for. */
  asking = $state<Wish | null>(null);
  /** What could not be had, and why. */
  failure = $state.raw<{ readonly wish: Wish; readonly message: string } | null>(null);
  /** Own texts on their way: they may be counted before they are in the list. */
  pending = $state(0);

  #next = $state.raw<string | null>(null);
  #count = $state.raw<number | null>(null);
  /** How many texts there were when the newest page was read. */
  #baseline = $state.raw<number | null>(null);
  /** Own rows put on top since then. */
  #own = $state(0);
  #fell = $state(false);
  /** Own rows saved while a page is being read: it may have been read before them. */
  #meanwhile: Text[] = [];
  readonly #get: (before: string | null) => Promise<Page>;

  constructor(get: (before: string | null) => Promise<Page> = getTexts) {
    this.#get = get;
  }

  /** Whether there are older texts to load. */
  get more(): boolean {
    return this.#next !== null;
  }

  /** How many texts others have stored since the list was read. */
  readonly added = $derived.by(() => {
    if (this.#count === null || this.#baseline === null || this.#fell) return 0;
    return Math.max(0, this.#count - this.#baseline - this.#own - this.pending);
  });

  /** Whether texts were deleted since the list was read. */
  get shrunk(): boolean {
    return this.#fell;
  }

  /** Takes the pushed count. */
  countIs(count: number): void {
    if (this.#count !== null && count < this.#count) this.#fell = count !== (this.#baseline ?? count) + this.#own;
    this.#count = count;
    if (this.loaded) this.#baseline ??= count;
  }

  /** Puts an own text on top, unless a page that was read in between has it already. */
  addOwn(row: Text): void {
    this.#meanwhile.push(row);
    if (this.rows.some(({ id }) => id === row.id)) return;
    this.rows = [row, ...this.rows];
    this.#own += 1;
  }

  /** Reads the newest page. */
  async newest(): Promise<void> {
    this.#meanwhile = [];
    const page = await this.#ask("newest", null);
    if (!page) return;
    const read = new Set(page.texts.map(({ id }) => id));
    const own = this.#meanwhile.filter(({ id }) => !read.has(id));
    // Pages that touch are joined, so that what was loaded by "load more" stays; else older rows would hide a gap.
    const joins = !this.#fell && page.next !== null && this.rows.some(({ id }) => read.has(id));
    const rest = this.rows.filter((row) => !read.has(row.id) && !own.includes(row));
    this.rows = [...own.reverse(), ...page.texts, ...(joins ? rest : [])];
    this.#next = joins ? this.#next : page.next;
    // A list that is whole says how many there were, whatever the count's way took.
    this.#baseline = this.#next === null ? this.rows.length - own.length : this.#count;
    this.#own = own.length;
    this.#fell = false;
    this.loaded = true;
  }

  /** Reads the next older page. */
  async older(): Promise<void> {
    const page = await this.#ask("older", this.#next);
    if (!page) return;
    const known = new Set(this.rows.map(({ id }) => id));
    this.rows = [...this.rows, ...page.texts.filter(({ id }) => !known.has(id))];
    this.#next = page.next;
  }

  async #ask(wish: Wish, before: string | null): Promise<Page | null> {
    if (this.asking) return null;
    this.asking = wish;
    this.failure = null;
    try {
      return await this.#get(before);
    } catch (error) {
      const message = error instanceof ApiError ? error.message : "The list cannot be shown.";
      this.failure = { wish, message };
      return null;
    } finally {
      this.asking = null;
    }
  }
}
