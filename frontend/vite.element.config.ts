import { defineConfig } from "vite";

/** The element for other pages: one self-contained module with a name that stays. Built after the page, into the same folder. */
export default defineConfig({
  publicDir: false,
  build: {
    outDir: "dist",
    emptyOutDir: false,
    modulePreload: false,
    target: "es2022",
    rolldownOptions: {
      input: "client/element/define.ts",
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "tide-mark.js" },
    },
  },
});
