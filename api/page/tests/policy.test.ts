/** What `Content-Security-Policy: default-src 'self'` would refuse must not be in the page. */

import { expect, test } from "vitest";
import html from "../index.html?raw";

const sources = import.meta.glob(["../src/**/*.{ts,tsx,css}", "../public/*"], {
  query: "?raw",
  import: "default",
  eager: true,
});

test("the document has no inline script, style or handler", () => {
  expect(html).not.toMatch(/<style|\sstyle=|\son\w+=/i);
  for (const [, attributes] of html.matchAll(/<script([^>]*)>/g)) expect(attributes).toContain("src=");
});

test.each(Object.entries(sources))("%s loads nothing from elsewhere and makes no markup from text", (name, text) => {
  expect(text, name).not.toBe("");
  const code = String(text).replace('xmlns="http://www.w3.org/2000/svg"', "");
  expect(code, name).not.toMatch(/https?:\/\/|@import|url\(/);
  expect(code, name).not.toMatch(
    /innerHTML|dangerouslySetInnerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|style=/,
  );
});
