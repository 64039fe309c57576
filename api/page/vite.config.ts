import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "./", // the page may stand under any path
  build: {
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"], // the first that know light-dark()
    sourcemap: false,
    assetsInlineLimit: 0, // a data: address would be refused by `default-src 'self'`
    modulePreload: { polyfill: false },
  },
  test: {
    include: ["tests/**/*.test.{ts,tsx}"],
    css: true, // the tests of contrast and policy read the style sheets
  },
});
