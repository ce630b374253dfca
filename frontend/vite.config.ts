import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

/** Whom `npm run dev` asks for everything but the page: the demo, or what BOARD names, for example https://localhost. */
const board = { target: process.env["BOARD"] ?? "http://localhost:3000", secure: false };

/** The page. Nothing inline leaves this build: the server's Content-Security-Policy allows files of its own only. */
export default defineConfig({
  root: "board",
  base: "./",
  plugins: [svelte({ configFile: "../svelte.config.js" })],
  server: {
    proxy: { "/ws": { ...board, ws: true }, "/events": board, "/save": board, "/all": board },
  },
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
});
