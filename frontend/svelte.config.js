/** Components are plain Svelte 5 with runes; TypeScript in them is erased by Svelte itself. */
export default { compilerOptions: { runes: true } };
