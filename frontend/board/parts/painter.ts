/**
 * Charts painted in one frame. The dear part is not the script but the browser's filling with colour after it, which cannot be timed here. A
 * hundred servers push 25 new values four times a second: with 4 charts a frame they are on the screen after 7 frames of the 15 between two pushes.
 */
const MOST = 4;

/**
 * A chart that is painted in a new size counts as this many: its canvas is allocated, and the browser composes all layers of the page. A wall that
 * opens with 100 charts shows all of them after 50 frames.
 */
const NEW_SIZE = 2;

/** What a painter needs of the browser. Tests bring their own. */
export interface PaintWorld {
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
  /** It was never painted in this size. */
  resized: boolean;
}

const browser: PaintWorld = {
  frame: (callback) => requestAnimationFrame(callback),
  sight: (callback) => new IntersectionObserver(callback),
  size: (callback) => new ResizeObserver(callback),
};

/** Paints many canvases: each at most once per frame, only those in sight, and only so many that a frame stays short. */
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
        place.resized = true;
        this.#plan(place);
      }
    });
  }

  /** Paints into this element from now on; gives what ends that. */
  add(element: Element, paint: Paint): () => void {
    const place = { paint, inSight: false, size: { width: 0, height: 0 }, stale: true, resized: true };
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
    let left = MOST;
    for (const place of this.#due) {
      if (left <= 0) break;
      left -= place.resized ? NEW_SIZE : 1;
      this.#due.delete(place);
      place.stale = false;
      place.resized = false;
      place.paint(place.size);
    }
    this.#askForFrame();
  }
}
