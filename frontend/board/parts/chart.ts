import UPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { SPAN, type Trail } from "../state/trail.js";
import type { Size } from "./painter.js";

/** Least width of the line, px. */
const LINE = 1.5;
/** Of a large chart, as on a wall, its line is this part of the height. */
const LINE_PART = 1 / 50;

/** What a chart is wide, s: up to which second, and from how long before. */
export interface Time {
  readonly until: number;
  readonly span: number;
}

/** The line of one trail, from 0 to 100 %, without axes: its card has the numbers. */
export class Chart {
  readonly #host: HTMLElement;
  readonly #trail: Trail;
  /** Made when it is first painted: most of a hundred charts are never scrolled to. */
  #plot: UPlot | null = null;
  #time: Time = { until: 0, span: SPAN };

  constructor(host: HTMLElement, trail: Trail) {
    this.#host = host;
    this.#trail = trail;
  }

  /** Paints what is known of this time. */
  paint(time: Time, size: Size): void {
    this.#time = time;
    const columns = this.#trail.columns();
    if (!this.#plot) {
      this.#plot = new UPlot(this.#options(size), columns, this.#host);
      return;
    }
    const plot = this.#plot;
    // At once and not in a microtask, so that the painter sees how long it takes.
    plot.batch(() => {
      if (plot.width !== size.width || plot.height !== size.height) plot.setSize(size);
      plot.setData(columns);
    });
  }

  /** Ends it. */
  destroy(): void {
    this.#plot?.destroy();
    this.#plot = null;
  }

  #options(size: Size): UPlot.Options {
    const line = Math.max(LINE, size.height * LINE_PART);
    return {
      ...size,
      // Room for the width of the line at 100 %.
      padding: [line, 0, 0, 0],
      cursor: { show: false },
      legend: { show: false },
      axes: [{ show: false }, { show: false }],
      scales: {
        x: { time: false, range: () => [this.#time.until - this.#time.span, this.#time.until] },
        y: { range: [0, 100] },
      },
      series: [
        {},
        { stroke: () => colour("--chart-line"), fill: () => colour("--chart-area"), width: line, points: { show: false } },
      ],
    };
  }
}

const colours = new Map<string, string>();

/** A colour of board.css. Reading one makes the browser compute styles, which is too much for every line. */
function colour(name: string): string {
  let value = colours.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    colours.set(name, value);
  }
  return value;
}

/** Reads the colours anew, after a change of the scheme. */
export function forgetColours(): void {
  colours.clear();
}
