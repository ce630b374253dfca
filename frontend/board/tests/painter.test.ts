// @vitest-environment happy-dom
import { expect, test } from "vitest";
import { Painter, type PaintWorld, type Size } from "../parts/painter.js";

type Sight = Parameters<Parameters<PaintWorld["sight"]>[0]>[0];
type Sizes = Parameters<Parameters<PaintWorld["size"]>[0]>[0];

/** A screen on which the test is the browser. */
class Screen implements PaintWorld {
  readonly frames: (() => void)[] = [];
  readonly painted: string[] = [];
  readonly observed = new Set<Element>();
  readonly painter: Painter;
  #sight: (changes: Sight) => void = () => undefined;
  #size: (changes: Sizes) => void = () => undefined;

  constructor() {
    this.painter = new Painter(this);
  }

  frame(callback: () => void): void {
    this.frames.push(callback);
  }

  sight(callback: (changes: Sight) => void): Pick<ResizeObserver, "observe" | "unobserve"> {
    this.#sight = callback;
    return { observe: (element) => void this.observed.add(element), unobserve: (element) => void this.observed.delete(element) };
  }

  size(callback: (changes: Sizes) => void): Pick<ResizeObserver, "observe" | "unobserve"> {
    this.#size = callback;
    return { observe: () => undefined, unobserve: () => undefined };
  }

  /** Adds a chart. */
  add(name: string): { element: Element; remove: () => void } {
    const element = document.createElement("div");
    const remove = this.painter.add(element, ({ width, height }: Size) => {
      this.painted.push(`${name} ${width}×${height}`);
    });
    return { element, remove };
  }

  show(target: Element, isIntersecting = true): void {
    this.#sight([{ target, isIntersecting }]);
  }

  resize(target: Element, width = 200, height = 40): void {
    this.#size([{ target, contentRect: { width, height } as DOMRectReadOnly }]);
  }

  /** The next frame. Gives what was painted in it. */
  next(): string[] {
    this.painted.length = 0;
    for (const callback of this.frames.splice(0)) callback();
    return [...this.painted];
  }
}

test("a chart is painted when it is in sight and has a size, once per frame", () => {
  const screen = new Screen();
  const { element } = screen.add("a");
  screen.painter.renew(element);
  screen.show(element);
  expect(screen.frames).toHaveLength(0);
  screen.resize(element);
  screen.painter.renew(element);
  screen.painter.renew(element);
  expect(screen.frames).toHaveLength(1);
  expect(screen.next()).toEqual(["a 200×40"]);
  expect(screen.frames).toHaveLength(0);
});

test("what is out of sight is painted when it comes into sight, and only if it has changed", () => {
  const screen = new Screen();
  const { element } = screen.add("a");
  screen.resize(element);
  screen.show(element);
  screen.next();
  screen.show(element, false);
  screen.show(element);
  expect(screen.next()).toEqual([]);
  screen.show(element, false);
  screen.painter.renew(element);
  expect(screen.next()).toEqual([]);
  screen.show(element);
  expect(screen.next()).toEqual(["a 200×40"]);
});

test("a new size is painted without a new value", () => {
  const screen = new Screen();
  const { element } = screen.add("a");
  screen.resize(element);
  screen.show(element);
  screen.next();
  screen.resize(element, 300, 50);
  expect(screen.next()).toEqual(["a 300×50"]);
});

test("many charts are spread over frames, and each has its turn", () => {
  const screen = new Screen();
  const charts = ["a", "b", "c", "d", "e", "f"].map((name) => screen.add(name));
  for (const { element } of charts) {
    screen.resize(element);
    screen.show(element);
  }
  // New ones are dear.
  expect(screen.next()).toEqual(["a 200×40", "b 200×40"]);
  expect(screen.next()).toEqual(["c 200×40", "d 200×40"]);
  expect(screen.next()).toEqual(["e 200×40", "f 200×40"]);
  for (const { element } of charts) screen.painter.renew(element);
  expect(screen.next()).toEqual(["a 200×40", "b 200×40", "c 200×40", "d 200×40"]);
  if (charts[0]) screen.painter.renew(charts[0].element);
  expect(screen.next()).toEqual(["e 200×40", "f 200×40", "a 200×40"]);
  expect(screen.frames).toHaveLength(0);
});

test("after a change of colours everything in sight is painted anew", () => {
  const screen = new Screen();
  const [seen, hidden] = [screen.add("seen"), screen.add("hidden")];
  for (const { element } of [seen, hidden]) screen.resize(element);
  screen.show(seen.element);
  screen.next();
  screen.painter.renewAll();
  expect(screen.next()).toEqual(["seen 200×40"]);
});

test("a chart that was taken away is never painted again", () => {
  const screen = new Screen();
  const { element, remove } = screen.add("a");
  screen.resize(element);
  screen.show(element);
  remove();
  expect(screen.next()).toEqual([]);
  expect(screen.observed.size).toBe(0);
});
