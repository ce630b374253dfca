// @vitest-environment happy-dom
import { afterEach, expect, test, vi } from "vitest";
import { pageProtocol, protocolName, protocolSentence } from "../state/protocol.js";

afterEach(() => {
  vi.restoreAllMocks();
});

test.each([
  ["h3", "HTTP/3"],
  ["h3-29", "HTTP/3"],
  ["h2", "HTTP/2"],
  ["h2c", "HTTP/2"],
  ["http/1.1", "HTTP/1.1"],
  ["http/1.0", "HTTP/1.0"],
  ["", null],
  ["h33", null],
  ["unknown", null],
])("%o is called %o", (nextHop, name) => {
  expect(protocolName(nextHop)).toBe(name);
});

test("the page's own protocol is that of its navigation, if the browser tells", () => {
  const entries = vi.spyOn(performance, "getEntriesByType");
  entries.mockReturnValue([{ nextHopProtocol: "h3" } as PerformanceNavigationTiming]);
  expect(pageProtocol()).toBe("HTTP/3");
  expect(entries).toHaveBeenCalledWith("navigation");
  entries.mockReturnValue([]);
  expect(pageProtocol()).toBeNull();
});

test("HTTP/3 is claimed for the page only", () => {
  for (const transport of ["ws", null] as const) {
    expect(protocolSentence("HTTP/3", transport)).toBe("page loaded over HTTP/3; live values over WebSocket (HTTP/1.1)");
  }
  expect(protocolSentence("HTTP/3", "sse")).toMatch(/^page loaded over HTTP\/3; live values over server-sent events, /);
});
