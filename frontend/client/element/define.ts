import { TideMark } from "./tide-mark.js";

declare global {
  interface HTMLElementTagNameMap {
    "tide-mark": TideMark;
  }
}

// A page may load the script twice, or two versions of it: the first one stays.
if (!customElements.get("tide-mark")) customElements.define("tide-mark", TideMark);

export { TideMark };
