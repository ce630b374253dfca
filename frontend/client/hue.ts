/** 360° divided by the golden ratio: numbers that follow each other lie as far apart on the circle as any sequence can keep them. */
const GOLDEN_ANGLE = 137.508;

/**
 * The hue of a replica, 0–359, made from its name. `dashboard-1`, `dashboard-2`, … differ by the golden angle; names that end
 * otherwise are spread by a hash.
 */
export function hueOf(name: string): number {
  const [, stem = "", digits = ""] = /^(.*?)(\d{0,6})$/s.exec(name) ?? [];
  return Math.round((fnv1a(stem) % 360) + Number(digits) * GOLDEN_ANGLE) % 360;
}

/** FNV-1a, 32 bits, over UTF-16 units: short, and good enough for colours. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}
