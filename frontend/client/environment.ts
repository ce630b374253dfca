/** What a connection needs of the world. Tests bring their own. */
export interface Environment {
  /** Whole ms of a monotonic clock. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  /** Calls back once; gives what cancels it. */
  after(ms: number, callback: () => void): () => void;
  /** Opens a WebSocket. May throw, as the constructor does. */
  open(url: URL, protocol: string): WebSocket;
  /** Follows a stream of events. May throw, as the constructor does. */
  follow(url: URL): EventSource;
  /** Calls back when the page comes and goes; gives what stops that. */
  watchPage(page: PageEvents): () => void;
}

/** What happens to a page. */
export interface PageEvents {
  /** The network came back, or somebody looks at the page again. */
  readonly nudge: () => void;
  /** The page goes away, perhaps into the back/forward cache. */
  readonly leave: () => void;
  /** It came back from there. */
  readonly comeBack: () => void;
}

/** The browser. */
export const browser: Environment = {
  now: monotonicClock(
    () => performance.now(),
    () => Date.now(),
  ),
  random: Math.random,
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(ms, MAX_TIMEOUT));
    return () => {
      clearTimeout(timer);
    };
  },
  open: (url, protocol) => new WebSocket(url, protocol),
  follow: (url) => new EventSource(url),
  watchPage({ nudge, leave, comeBack }) {
    const listening = new AbortController();
    const { signal } = listening;
    window.addEventListener("online", nudge, { signal });
    document.addEventListener(
      "visibilitychange",
      () => {
        if (document.visibilityState === "visible") nudge();
      },
      { signal },
    );
    window.addEventListener("pagehide", leave, { signal });
    window.addEventListener(
      "pageshow",
      (event) => {
        if (event.persisted) comeBack();
      },
      { signal },
    );
    return () => {
      listening.abort();
    };
  },
};

/** The longest timer that browsers keep: 2^31 − 1 ms. They fire longer ones at once. */
const MAX_TIMEOUT = 2_147_483_647;

/** Two readings of both clocks lie at most some seconds apart and drift by far less than this, ms; a greater difference is a sleep. */
const SLEEP = 2_000;

/**
 * A clock that never runs backwards and knows of sleep. `performance.now()` stands still on some systems while the computer
 * sleeps: values would look younger than they are, and the silence of a connection shorter. So when the wall clock has moved
 * on by much more, that is taken. A wall clock that somebody sets forward looks the same; it costs one reconnect.
 */
export function monotonicClock(steady: () => number, wall: () => number): () => number {
  let elapsed = 0;
  let lastSteady = steady();
  let lastWall = wall();
  return () => {
    const [nowSteady, nowWall] = [steady(), wall()];
    const [bySteady, byWall] = [nowSteady - lastSteady, nowWall - lastWall];
    elapsed += byWall - bySteady > SLEEP ? byWall : bySteady;
    lastSteady = nowSteady;
    lastWall = nowWall;
    return Math.floor(elapsed);
  };
}
