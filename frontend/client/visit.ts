import { uuid } from "./uuid.js";

/** A page from its load until it is closed: one visitor, whatever becomes of its sockets. */
export class Visit {
  /** A UUID that only this page knows. */
  readonly id: string;
  #sockets = 0;

  constructor(id: string = uuid()) {
    this.id = id;
  }

  /** The number of the page's next socket. The one with the greatest owns the visit, so a server knows which of two is newer. */
  next(): number {
    this.#sockets += 1;
    return this.#sockets;
  }
}

let page: Visit | null = null;

/** The visit of this page. The first use makes it. */
export function pageVisit(): Visit {
  page ??= new Visit();
  return page;
}
