import { defineConfig } from "vite";

/** The element for other pages: one self-contained module with a name that stays. Built after the page, into the same folder. */
export default defineConfig({
  publicDir: false,
  build: {
    outDir: "dist",
    emptyOutDir: false,
    lib: { entry: "client/element/define.ts", formats: ["es"], fileName: () => "tide-mark.js" },
    minify: true,
    target: "es2022",
  },
});
