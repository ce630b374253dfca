import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte()],
  // Runes in plain modules need the client's build of Svelte.
  resolve: { conditions: ["browser"] },
  test: { include: ["client/tests/**/*.test.ts", "board/tests/**/*.test.ts"] },
});
