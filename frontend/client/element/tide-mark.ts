import { AgeClock, ageOf } from "../ages.js";
import type { Snapshot } from "../connection.js";
import { Throttle } from "../throttle.js";
import { sharedServer, type SharedServer, type Subscriber } from "./shared.js";
import { STYLE } from "./style.js";

/** Stands where there is no number: an en dash, because 0 would be a claim. */
const UNKNOWN = "–";

/** Where this module was loaded from: the server whose values an element shows if it has no `src`. */
const HOME = new URL(/* @vite-ignore */ ".", import.meta.url).href;

/** Every age on the page hangs on one timer. Made by the first element, not by the import. */
let ages: AgeClock | undefined;
let sheet: CSSStyleSheet | undefined;
const FORMAT = { maximumFractionDigits: 1 };
const formats = new Map<string, Intl.NumberFormat>();

/**
 * `<tide-mark feed="texts">`: a live number. All elements of a page share one connection per server.
 *
 * Attributes: `feed`; `key`, for feeds that have keys; `field`, which number of the value (default: the first one); `src`, the address
 * of the server (default: where the script came from). The element sets `data-status` to the state of the connection (`idle`,
 * `connecting`, `live`, `moving`, `reconnecting`, `refused`), `data-old` while the value is older than 10 s, and `data-missing` to what the
 * server does not have: `key` or `field`. Parts: `number`, `note`.
 */
export class TideMark extends HTMLElement {
  static readonly observedAttributes = ["feed", "key", "field", "src"];

  readonly #number = part("number");
  readonly #note = part("note");
  readonly #spoken = document.createElement("span");
  readonly #announce = new Throttle<string>((text) => {
    this.#spoken.textContent = text;
  });
  #subscription: { readonly server: SharedServer; readonly subscriber: Subscriber } | null = null;
  #snapshot: Snapshot | null = null;
  #feed = "";
  readonly #watcher = (now: number): number | null => this.#showAge(now);

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [styleSheet()];
    this.#number.textContent = UNKNOWN;
    this.#spoken.className = "spoken";
    this.#spoken.setAttribute("aria-live", "polite");
    root.append(this.#number, this.#note, this.#spoken);
  }

  /** Called by the browser. */
  connectedCallback(): void {
    this.#subscribe();
  }

  /** Called by the browser. */
  disconnectedCallback(): void {
    this.#unsubscribe();
  }

  /** Called by the browser. */
  attributeChangedCallback(_name: string, before: string | null, after: string | null): void {
    if (before === after || !this.isConnected) return;
    this.#unsubscribe();
    this.#subscribe();
  }

  #subscribe(): void {
    const feed = this.getAttribute("feed") ?? "";
    if (feed === "") return;
    const key = this.getAttribute("key") ?? "";
    const address = serverOf(this.getAttribute("src"));
    if (address === null) {
      setAttribute(this, "data-status", "refused");
      this.#note.textContent = "refused: src is no address";
      return;
    }
    const server = sharedServer(address);
    const subscriber: Subscriber = {
      feed: key === "" ? feed : `${feed}:${key}`,
      show: (snapshot) => {
        this.#show(snapshot, feed, `${feed}:${key}`);
      },
    };
    this.#subscription = { server, subscriber };
    server.add(subscriber);
  }

  #unsubscribe(): void {
    this.#subscription?.server.remove(this.#subscription.subscriber);
    this.#subscription = null;
    this.#snapshot = null;
    this.#announce.stop();
    ages?.remove(this.#watcher);
  }

  #show(snapshot: Snapshot, feed: string, item: string): void {
    this.#snapshot = snapshot;
    setAttribute(this, "data-status", snapshot.status);
    const value = snapshot.items.get(item)?.value;
    const number = pick(value, this.getAttribute("field"));
    const isTold = snapshot.status !== "connecting" && snapshot.knownAt.has(feed);
    setAttribute(this, "data-missing", number !== null || !isTold ? null : value === undefined ? "key" : "field");
    const text = number === null ? UNKNOWN : formatFor(this).format(number);
    const before = this.#number.textContent;
    if (text !== before) {
      this.#number.textContent = text;
      // The first number is read with the page; only changes are news.
      if (before !== UNKNOWN) this.#announce.push(number === null ? "no value" : text);
    }
    this.#feed = feed;
    ages ??= new AgeClock();
    ages.refresh(this.#watcher);
  }

  /** Says how old the number is, if that is worth saying, or why there is none. */
  #showAge(now: number): number | null {
    if (!this.#snapshot) return null;
    const { status, reason, database, knownAt } = this.#snapshot;
    const away = database === "down";
    const { text, changesAt } = ageOf(knownAt.get(this.#feed), now, { away });
    const age = text === null ? "" : `as of ${text} ago`;
    const note = status === "refused" ? `refused: ${reason ?? ""}` : age;
    if (this.#note.textContent !== note) this.#note.textContent = note;
    const missing = { key: "no such item", field: "no such number" }[this.getAttribute("data-missing") ?? ""];
    setAttribute(this, "title", [missing, age, away ? "database away" : ""].filter(Boolean).join(", ") || null);
    setAttribute(this, "data-old", text === null ? null : "");
    return changesAt;
  }
}

function part(name: string): HTMLSpanElement {
  const span = document.createElement("span");
  span.setAttribute("part", name);
  return span;
}

function styleSheet(): CSSStyleSheet {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
  }
  return sheet;
}

/** The base address in `src`, or where the script came from; null if it cannot be read. */
function serverOf(src: string | null): string | null {
  if (src === null || src === "") return HOME;
  const base = src.endsWith("/") ? src : `${src}/`;
  return URL.canParse(base, document.baseURI) ? new URL(base, document.baseURI).href : null;
}

/** The number to show: the named field, or the first number of the value. */
function pick(value: unknown, field: string | null): number | null {
  if (typeof value !== "object" || value === null) return null;
  const entries = Object.entries(value as Record<string, unknown>);
  const found = entries.find(([name, entry]) => typeof entry === "number" && (field === null || name === field));
  return typeof found?.[1] === "number" ? found[1] : null;
}

/** Numbers are written in the language of the text around them, measured ones with one decimal at most: more would only flicker. */
function formatFor(element: Element): Intl.NumberFormat {
  const language = element.closest("[lang]")?.getAttribute("lang") ?? "";
  let format = formats.get(language);
  if (!format) {
    try {
      format = new Intl.NumberFormat(language === "" ? undefined : language, FORMAT);
    } catch {
      format = new Intl.NumberFormat(undefined, FORMAT); // not a language tag
    }
    formats.set(language, format);
  }
  return format;
}

/** Writes only changes: an observer of the page sees no needless mutation. */
function setAttribute(element: Element, name: string, value: string | null): void {
  if (element.getAttribute(name) === value) return;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}
