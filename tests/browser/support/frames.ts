import type { Browser, Page } from "@playwright/test";

/** How the frames of a page were, in ms. */
export interface Frames {
  readonly count: number;
  /** What the page's main thread worked for a frame: messages, scripts, styles, layout and paint. On a busy machine it is the same. */
  readonly workP95: number;
  /** From the start of a frame until the page was ready for the next. On a busy machine it grows. */
  readonly timeP95: number;
  /** Between the starts of two frames; 16.7 on a screen of 60 Hz that misses none. */
  readonly distanceP95: number;
}

/** Watches every frame of a page for so long, ms. */
export async function watchFrames(browser: Browser, page: Page, ms: number): Promise<Frames> {
  await browser.startTracing(page, { categories: ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline.frame"] });
  const { times, distances } = await page.evaluate(measure, ms);
  const trace = JSON.parse((await browser.stopTracing()).toString()) as { traceEvents: TraceEvent[] };
  const work = workOf(trace.traceEvents);
  return { count: work.length, workP95: p95(work), timeP95: p95(times), distanceP95: p95(distances) };
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

/** What is read of Chromium's trace: times are µs, `tdur` is the time that the thread had the processor. */
interface TraceEvent {
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly tdur?: number;
}

/** The processor's time, ms, that each frame took of the thread that makes frames: all tasks since the frame before and its own. */
function workOf(events: readonly TraceEvent[]): number[] {
  const frames = events.filter(({ name }) => name === "BeginMainThreadFrame");
  const counts = new Map<string, number>();
  for (const frame of frames) counts.set(threadOf(frame), (counts.get(threadOf(frame)) ?? 0) + 1);
  const [busiest] = [...counts].sort(([, a], [, b]) => b - a)[0] ?? [];
  const begins = frames.filter((frame) => threadOf(frame) === busiest).map(({ ts }) => ts);
  begins.sort((a, b) => a - b);
  const work = begins.map(() => 0);
  for (const event of events) {
    if (event.name !== "ThreadControllerImpl::RunTask" || threadOf(event) !== busiest) continue;
    const frame = begins.findIndex((begin) => begin >= event.ts);
    if (frame !== -1) work[frame] = (work[frame] ?? 0) + (event.tdur ?? 0) / 1_000;
  }
  return work;
}

function threadOf({ pid, tid }: TraceEvent): string {
  return `${pid}:${tid}`;
}

function p95(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const value = sorted[Math.ceil(sorted.length * 0.95) - 1];
  if (value === undefined) throw new Error("there were no frames");
  return Math.round(value * 10) / 10;
}
