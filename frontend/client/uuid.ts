/** A random UUID. `crypto.randomUUID` exists only on https and localhost; a board on a plain address of the house needs one too. */
export function uuid(source: Pick<Crypto, "getRandomValues"> & { randomUUID?: () => string } = crypto): string {
  if (source.randomUUID) return source.randomUUID();
  const bytes = source.getRandomValues(new Uint8Array(16));
  const hex = [...bytes]
    .map((byte, index) => {
      if (index === 6) return (byte & 0x0f) | 0x40; // version 4
      if (index === 8) return (byte & 0x3f) | 0x80; // variant of RFC 9562
      return byte;
    })
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
