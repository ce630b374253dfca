/** How the servers share a wall. */
export interface Wall {
  readonly columns: number;
  readonly rows: number;
  /** So many that a card is only a name, a number and a line. */
  readonly many: boolean;
}

/** Cards with everything in them are legible from afar up to this many. */
const FULL = 24;

/** More than this many are not legible on a wall at all; the rest is only counted. */
export const WALL_LIMIT = 120;

/** Columns and rows for so many servers on two thirds of a wide screen, where a card is about twice as wide as high. */
export function wallFor(servers: number): Wall {
  const shown = Math.min(servers, WALL_LIMIT);
  const many = shown > FULL;
  const columns = many ? (shown <= 60 ? 6 : 8) : shown <= 3 ? 1 : shown <= 8 ? 2 : shown <= 15 ? 3 : 4;
  return { columns, rows: Math.max(1, Math.ceil(shown / columns)), many };
}
