/** What a screen reader has not been told yet. The first words about a subject are read with the page; only others are news. */
export class News {
  readonly #said = new Map<string, string>();
  readonly #waiting = new Map<string, string>();

  /** These are the words about a subject now; null: nothing is known. */
  tell(subject: string, words: string | null): void {
    if (words === null) return;
    const said = this.#said.get(subject);
    if (said === undefined) this.#said.set(subject, words);
    if (said === undefined || said === words) this.#waiting.delete(subject);
    else this.#waiting.set(subject, words);
  }

  /** Whether there are news. */
  get any(): boolean {
    return this.#waiting.size > 0;
  }

  /** All news as one sentence; then they are none any more. */
  take(): string {
    const sentence = [...this.#waiting.values()].join(", ");
    for (const [subject, words] of this.#waiting) this.#said.set(subject, words);
    this.#waiting.clear();
    return sentence;
  }
}
