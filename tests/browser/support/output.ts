import type { ChildProcess } from "node:child_process";
import { once } from "node:events";

const all: Output[] = [];

/** Output of a program under test, from the streams that are pipes. A test that fails prints the part since it began. */
export class Output {
  readonly #program: string;
  readonly #ended: Promise<unknown>;
  #text = "";
  /** Length of the text at the start of the test. */
  #before = 0;

  /** Reads the output of a program that has just been started. */
  constructor(program: string, process: ChildProcess) {
    this.#program = program;
    // Not "exit": the last lines may come after it.
    this.#ended = once(process, "close");
    for (const stream of [process.stdout, process.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => (this.#text += text));
    }
    all.push(this);
  }

  /** All output so far. */
  get text(): string {
    return this.#text;
  }

  /** Waits until the program has ended and all of its output has been read. */
  async closed(): Promise<void> {
    await this.#ended;
  }

  /** Marks the start of a test. */
  static mark(): void {
    for (const output of all) output.#before = output.#text.length;
  }

  /** Prints the output since the last mark. */
  static print(): void {
    for (const output of all) {
      const text = output.#text.slice(output.#before);
      if (text !== "") console.error(`output of ${output.#program} since the test began:\n${text}`);
    }
  }
}
