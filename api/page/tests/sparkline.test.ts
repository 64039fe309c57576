import { expect, test } from "vitest";
import { sparkPaths } from "../src/sparkline";

test("a gap interrupts the line", () => expect(sparkPaths([1, 2, null, 2, 1]).line.match(/M/g)).toHaveLength(2));

test("a lone value is still to be seen", () => expect(sparkPaths([null, 5, null]).line).toMatch(/^M50 [\d.]+h/));

test("nothing draws nothing", () => expect(sparkPaths([null, null])).toEqual({ line: "", area: "" }));

test("zero throughout lies at the bottom", () => expect(sparkPaths([0, 0]).line).toBe("M0 30L100 30"));

test("the line stays within its box", () => {
  const heights = [...sparkPaths([3, 900, 1, 0, 450]).line.matchAll(/[ML]\S+ ([\d.]+)/g)].map((found) =>
    Number(found[1]),
  );
  expect(Math.min(...heights)).toBeGreaterThanOrEqual(2);
  expect(Math.max(...heights)).toBeLessThanOrEqual(30);
});
