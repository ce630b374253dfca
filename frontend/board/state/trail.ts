/** How far back a trail goes, s: what a small chart can show, one point a second. */
export const SPAN = 300;

/** A longer silence is a hole, s. A value comes each second; some may be skipped on their way, five in a row are missing. */
export const HOLE = 5;

/** The columns of a chart: whole seconds, and a value for each; null where the line breaks. */
export type Columns = [seconds: number[], values: (number | null)[]];

/** The last minutes of one number, made of what was pushed. Its time is that of the samples; it knows no clock. */
export class Trail {
  readonly #seconds: number[] = [];
  readonly #values: number[] = [];

  /** Adds the value of a second, and forgets what is older than {@link SPAN}. After a restored database time may be earlier: what comes later is no past. */
  push(second: number, value: number): void {
    while ((this.#seconds.at(-1) ?? -Infinity) >= second) {
      this.#seconds.pop();
      this.#values.pop();
    }
    this.#seconds.push(second);
    this.#values.push(value);
    while ((this.#seconds[0] ?? second) <= second - SPAN) {
      this.#seconds.shift();
      this.#values.shift();
    }
  }

  /** Least and greatest value; null before the first. */
  get range(): readonly [number, number] | null {
    return this.#values.length === 0 ? null : [Math.min(...this.#values), Math.max(...this.#values)];
  }

  /** What a chart draws: every point, with a break where values are missing. */
  columns(): Columns {
    const columns: Columns = [[], []];
    let last = Infinity;
    for (const [index, second] of this.#seconds.entries()) {
      if (second - last > HOLE) {
        columns[0].push(last + 1);
        columns[1].push(null);
      }
      columns[0].push(second);
      columns[1].push(this.#values[index] ?? null);
      last = second;
    }
    return columns;
  }
}
