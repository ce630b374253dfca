import type { Transport } from "../../client/index.js";

/** The browser's identifiers (RFC 7301, ALPN) and what people call them. Drafts of HTTP/3 had a number behind. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^h3(-|$)/, "HTTP/3"],
  [/^h2c?$/, "HTTP/2"],
  [/^http\/1\.1$/, "HTTP/1.1"],
  [/^http\/1\.0$/, "HTTP/1.0"],
];

/** `HTTP/3` for `h3`; null for what the browser does not tell, for example of a page out of its cache. */
export function protocolName(nextHop: string): string | null {
  return NAMES.find(([pattern]) => pattern.test(nextHop))?.[1] ?? null;
}

/** Over which version of HTTP this page was loaded. */
export function pageProtocol(): string | null {
  const [navigation] = performance.getEntriesByType("navigation");
  return protocolName((navigation as PerformanceNavigationTiming | undefined)?.nextHopProtocol ?? "");
}

/**
 * No browser and no ingress carries a WebSocket over HTTP/3 today: the badge must not claim it. Server-sent events come over
 * whatever the browser has for requests, but it does not tell what that is while the answer goes on.
 */
export function protocolSentence(protocol: string, transport: Transport | null): string {
  const live = transport === "sse" ? "server-sent events, because a WebSocket does not get through" : "WebSocket (HTTP/1.1)";
  return `page loaded over ${protocol}; live values over ${live}`;
}
