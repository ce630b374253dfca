/** Time that painting may take of one frame, ms: a quarter of the 16 that a screen gives, so that a page full of charts appears over some frames. */
const BUDGET = 4;

/** What a painter needs of the browser. Tests bring their own. */
export interface PaintWorld {
  now(): number;
  /** Calls back before the next frame; never while nobody can see the page. */
  frame(callback: () => void): void;
  /** Tells when elements come into sight and leave it. */
  sight(callback: (changes: readonly Pick<IntersectionObserverEntry, "target" | "isIntersecting">[]) => void): Observer;
  /** Tells the sizes of elements, at first and when they change. */
  size(callback: (changes: readonly Pick<ResizeObserverEntry, "target" | "contentRect">[]) => void): Observer;
}

type Observer = Pick<ResizeObserver, "observe" | "unobserve">;

/** Of a canvas, px. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Paints one canvas, of its element's size. */
export type Paint = (size: Size) => void;

interface Place {
  readonly paint: Paint;
  inSight: boolean;
  size: Size;
  stale: boolean;
}

const browser: PaintWorld = {
  now: () => performance.now(),
  frame: (callback) => requestAnimationFrame(callback),
  sight: (callback) => new IntersectionObserver(callback),
  size: (callback) => new ResizeObserver(callback),
};

/** Paints many canvases: each at most once per frame, only those in sight, and no longer than fits a frame. */
export class Painter {
  readonly #world: PaintWorld;
  readonly #places = new Map<Element, Place>();
  readonly #due = new Set<Place>();
  readonly #sight: Observer;
  readonly #size: Observer;
  #waiting = false;

  constructor(world: PaintWorld = browser) {
    this.#world = world;
    this.#sight = world.sight((changes) => {
      for (const { target, isIntersecting } of changes) {
        const place = this.#places.get(target);
        if (!place) continue;
        place.inSight = isIntersecting;
        this.#plan(place);
      }
    });
    this.#size = world.size((changes) => {
      for (const { target, contentRect } of changes) {
        const place = this.#places.get(target);
        if (!place) continue;
        place.size = { width: contentRect.width, height: contentRect.height };
        place.stale = true;
        this.#plan(place);
      }
    });
  }

  /** Paints into this element from now on; gives what ends that. */
  add(element: Element, paint: Paint): () => void {
    const place = { paint, inSight: false, size: { width: 0, height: 0 }, stale: true };
    this.#places.set(element, place);
    this.#sight.observe(element);
    this.#size.observe(element);
    return () => {
      this.#sight.unobserve(element);
      this.#size.unobserve(element);
      this.#places.delete(element);
      this.#due.delete(place);
    };
  }

  /** What this element shows has changed: it is painted in the next frame, or when it comes into sight. */
  renew(element: Element): void {
    const place = this.#places.get(element);
    if (!place) return;
    place.stale = true;
    this.#plan(place);
  }

  /** Everything looks different now, as after a change of colours. */
  renewAll(): void {
    for (const element of this.#places.keys()) this.renew(element);
  }

  #plan(place: Place): void {
    if (!place.inSight) this.#due.delete(place);
    else if (place.stale && place.size.width > 0 && place.size.height > 0) this.#due.add(place);
    this.#askForFrame();
  }

  #askForFrame(): void {
    if (this.#due.size === 0 || this.#waiting) return;
    this.#waiting = true;
    this.#world.frame(() => {
      this.#waiting = false;
      this.#paint();
    });
  }

  #paint(): void {
    const end = this.#world.now() + BUDGET;
    for (const place of this.#due) {
      this.#due.delete(place);
      place.stale = false;
      place.paint(place.size);
      if (this.#world.now() >= end) break;
    }
    this.#askForFrame();
  }
}
