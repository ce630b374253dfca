import type { Page } from "@playwright/test";

/** How the frames of a page were, in ms. */
export interface Frames {
  readonly count: number;
  /** From the start of a frame until the page was ready for the next: scripts, styles, layout and paint, and what made them wait. */
  readonly p50: number;
  readonly p95: number;
  readonly worst: number;
  /** Between the starts of two frames; 16.7 on a screen of 60 Hz that misses none. */
  readonly distanceP95: number;
}

/** Watches every frame of a page for so long. */
export async function watchFrames(page: Page, ms: number): Promise<Frames> {
  const { times, distances } = await page.evaluate(measure, ms);
  return {
    count: times.length,
    p50: quantile(times, 0.5),
    p95: quantile(times, 0.95),
    worst: quantile(times, 1),
    distanceP95: quantile(distances, 0.95),
  };
}

/** Runs in the page. A message that is posted when a frame begins is delivered when the frame is done. */
async function measure(ms: number): Promise<{ times: number[]; distances: number[] }> {
  const [times, distances]: [number[], number[]] = [[], []];
  const { port1, port2 } = new MessageChannel();
  const end = performance.now() + ms;
  let begun: number | null = null;
  await new Promise<void>((done) => {
    const frame = (time: number): void => {
      if (begun !== null) distances.push(time - begun);
      begun = time;
      port2.postMessage(null);
    };
    port1.onmessage = () => {
      const now = performance.now();
      times.push(now - (begun ?? now));
      if (now < end) requestAnimationFrame(frame);
      else done();
    };
    requestAnimationFrame(frame);
  });
  port1.close();
  return { times, distances };
}

function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const value = sorted[Math.ceil(sorted.length * part) - 1];
  if (value === undefined) throw new Error("there were no frames");
  return Math.round(value * 10) / 10;
}
