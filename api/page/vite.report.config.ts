import { defineConfig } from "vite";

/** The script and the style that reports carry inside them: one of each, without imports. */
export default defineConfig({
  publicDir: false,
  build: {
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"], // the first that know light-dark()
    outDir: "dist/report",
    emptyOutDir: true,
    sourcemap: false,
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    rollupOptions: {
      input: "src/report/main.ts",
      output: { format: "iife", entryFileNames: "report.js", assetFileNames: "report.[ext]" },
    },
  },
});
