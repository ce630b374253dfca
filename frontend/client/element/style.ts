/**
 * The look of the element, kept to what it needs: it takes its font and colour from the page around it. A constructed sheet, because
 * a strict Content-Security-Policy forbids `<style>`.
 */
export const STYLE = `
  :host { display: inline-block; font-variant-numeric: tabular-nums; }
  :host([hidden]) { display: none; }
  [part="number"] { transition: opacity 0.3s; }
  :host([data-status="reconnecting"]) [part="number"],
  :host([data-status="refused"]) [part="number"],
  :host([data-old]) [part="number"] { opacity: 0.6; }
  [part="note"] { margin-inline-start: 0.5em; font-size: 0.75em; font-weight: normal; opacity: 0.85; }
  [part="note"]:empty { display: none; }
  .spoken { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  @media (prefers-reduced-motion: reduce) { [part="number"] { transition: none; } }
`;
