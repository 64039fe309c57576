/** WCAG 2.2 AA over the colour tokens, in both themes: 4.5:1 for words, 3:1 for lines and marks. */

import { expect, test } from "vitest";
import tokens from "../src/styles/tokens.css?raw";

const PAIRS = new Map(
  [...tokens.matchAll(/--([\w-]+): light-dark\((#[\da-f]{6}), (#[\da-f]{6})\)/g)].map(([, name, light, dark]) => [
    name as string,
    { light: light as string, dark: dark as string },
  ]),
);

const WORDS = [
  ["text", "ground"],
  ["text", "surface"],
  ["text", "raised"],
  ["text-soft", "ground"],
  ["text-soft", "surface"],
  ["text-soft", "raised"],
  ["good", "surface"],
  ["bad", "surface"],
  ["warn", "ground"],
  ["warn", "surface"],
  ["warn", "warn-ground"],
] as const;
const MARKS = ["ink-jade", "ink-amber", "ink-coral", "ink-blue", "ink-violet", "ink-plum", "focus"];

function luminance(hex: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5]
    .map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

const of = (name: string, theme: "light" | "dark") => PAIRS.get(name)?.[theme] ?? "missing";

for (const theme of ["light", "dark"] as const) {
  test.each(WORDS)(`${theme}: words in %s on %s can be read`, (ink, paper) =>
    expect(contrast(of(ink, theme), of(paper, theme))).toBeGreaterThanOrEqual(4.5),
  );

  test.each(MARKS)(`${theme}: %s stands out from surface and ground`, (ink) => {
    expect(contrast(of(ink, theme), of("surface", theme))).toBeGreaterThanOrEqual(3);
    expect(contrast(of(ink, theme), of("ground", theme))).toBeGreaterThanOrEqual(3);
  });
}

test("black on white is 21 to 1", () => expect(contrast("#000000", "#ffffff")).toBeCloseTo(21, 6));
