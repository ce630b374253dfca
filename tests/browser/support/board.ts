import { expect, type Locator, type Page, type Request } from "@playwright/test";

/** A value of the page, and when it appeared: ms of the page's clock. */
export interface Seen {
  readonly value: string;
  readonly at: number;
}

/** What the page's observer writes down. */
interface Record {
  status: Seen[];
  count: Seen[];
  violations: string[];
}

declare global {
  interface Window {
    seen: Record;
  }
}

/** One open page, and everything that it did since. */
export class Board {
  readonly page: Page;
  readonly count: Locator;
  readonly status: Locator;
  readonly replica: Locator;
  readonly text: Locator;
  readonly saveButton: Locator;
  readonly saveError: Locator;
  readonly items: Locator;
  readonly newTexts: Locator;
  readonly loadMore: Locator;
  readonly handovers: Locator;
  readonly age: Locator;
  /** The cards. */
  readonly servers: Locator;
  /** Addresses of the WebSockets since the page was opened. */
  readonly sockets: URL[] = [];
  /** Requests since the page was opened, without the page's own files. */
  readonly requests: Request[] = [];
  /** Messages that the page sent over a WebSocket. */
  readonly sent: string[] = [];
  /** Errors and warnings in the console. */
  readonly complaints: string[] = [];

  private constructor(page: Page) {
    this.page = page;
    this.count = page.getByTestId("count");
    this.status = page.getByTestId("status");
    this.replica = page.getByTestId("replica");
    this.text = page.getByTestId("text");
    this.saveButton = page.getByTestId("save");
    this.saveError = page.getByTestId("save-error");
    this.items = page.getByTestId("item");
    this.newTexts = page.getByTestId("new-texts");
    this.loadMore = page.getByTestId("load-more");
    this.handovers = page.getByTestId("handovers").getByRole("listitem");
    this.age = page.getByTestId("age");
    this.servers = page.getByTestId("server");
  }

  /** Opens the page and waits until it is live and has its list. */
  static async open(page: Page, url: string): Promise<Board> {
    const board = new Board(page);
    page.on("request", (request) => {
      if (["fetch", "xhr", "eventsource", "ping"].includes(request.resourceType())) board.requests.push(request);
    });
    page.on("websocket", (socket) => {
      board.sockets.push(new URL(socket.url()));
      socket.on("framesent", ({ payload }) => board.sent.push(payload.toString()));
    });
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) board.complaints.push(message.text());
    });
    page.on("pageerror", (error) => board.complaints.push(error.message));
    await page.addInitScript(observe);
    await page.goto(url);
    await board.live();
    await expect(page.getByText("Loading…")).toHaveCount(0);
    return board;
  }

  /** Waits until the page is live. */
  async live(): Promise<void> {
    await expect(this.status).toHaveAttribute("data-status", "live");
  }

  /** The number on the page. */
  async number(): Promise<number> {
    return Number((await this.count.innerText()).replaceAll(",", ""));
  }

  /** Waits until the page shows this number. */
  async shows(number: number): Promise<void> {
    await expect(this.count).toHaveText(number.toLocaleString("en-GB"));
  }

  /** The card of the server with this name. */
  server(id: string): Locator {
    return this.page.locator(`[data-testid=server][data-id="${id}"]`);
  }

  /** The cards in one state: `fresh`, `stale` or `gone`. */
  serversThatAre(state: string): Locator {
    return this.page.locator(`[data-testid=server][data-state=${state}]`);
  }

  /** Saves as a person does, and waits until the box is empty again. */
  async save(text: string): Promise<void> {
    await this.text.fill(text);
    await this.saveButton.click();
    await expect(this.text).toHaveValue("");
  }

  /** All values that were on the page since it was opened, or since {@link forget}. */
  async seen(): Promise<Record> {
    return await this.page.evaluate(() => window.seen);
  }

  /** Begins a new record with what the page shows now. */
  async forget(): Promise<void> {
    await this.page.evaluate(() => {
      window.seen = { status: window.seen.status.slice(-1), count: window.seen.count.slice(-1), violations: [] };
    });
  }

  /** Ids of the texts that were sent to be saved. */
  savedIds(): string[] {
    return this.requests
      .filter((request) => request.method() === "POST")
      .map((request) => (request.postDataJSON() as { id: string }).id);
  }
}

/** Runs in the page: writes down every value that the status and the number ever have, also those that last a millisecond. */
function observe(): void {
  const seen: Record = (window.seen = { status: [], count: [], violations: [] });
  const note = (list: Seen[], value: string | null | undefined): void => {
    if (value !== null && value !== undefined && list.at(-1)?.value !== value) list.push({ value, at: performance.now() });
  };
  const look = (): void => {
    note(window.seen.status, document.querySelector("[data-testid=status]")?.getAttribute("data-status"));
    note(window.seen.count, document.querySelector("[data-testid=count]")?.textContent);
  };
  document.addEventListener("securitypolicyviolation", (event) => {
    seen.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
  });
  new MutationObserver((mutations) => {
    for (const { target, oldValue, attributeName } of mutations) {
      // Two changes in one task: the value between them is told by the second one's old value.
      if (attributeName === "data-status" && target instanceof Element && target.matches("[data-testid=status]")) {
        note(window.seen.status, oldValue);
      }
    }
    look();
  }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true, attributeOldValue: true });
}
