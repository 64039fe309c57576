/** The last minutes of one line, without axes. */

import type { Ink } from "./overview";

const WIDTH = 100;
const HEIGHT = 32;
/** Room for the line's own width at the edges. */
const MARGIN = 2;
/** A swing smaller than this share of the highest value is drawn small: noise is not news. */
const CALM = 0.2;

/** Paths for a line and the area under it; gaps stay open, a lone point becomes a short dash. */
export function sparkPaths(values: readonly (number | null)[]): { line: string; area: string } {
  const known = values.filter((value) => value !== null);
  const high = Math.max(0, ...known);
  const swing = Math.max(high - Math.min(high, ...known), high * CALM);
  const low = Math.max(0, high - swing * 2); // the line keeps to the upper half, its area stands below
  const x = (i: number) => round((i / Math.max(1, values.length - 1)) * WIDTH);
  const y = (value: number) =>
    round(HEIGHT - MARGIN - (high > low ? (value - low) / (high - low) : 0) * (HEIGHT - 2 * MARGIN));
  const line: string[] = [];
  const area: string[] = [];
  for (const run of runs(values)) {
    const points = run.map(([i, value]) => `${x(i)} ${y(value)}`);
    const first = run[0]?.[0] ?? 0;
    const last = run.at(-1)?.[0] ?? 0;
    line.push(points.length === 1 ? `M${points[0]}h0.6` : `M${points.join("L")}`);
    if (points.length > 1) area.push(`M${x(first)} ${HEIGHT}L${points.join("L")}L${x(last)} ${HEIGHT}Z`);
  }
  return { line: line.join(""), area: area.join("") };
}

export function Sparkline({ values, ink }: { values: readonly (number | null)[]; ink: Ink }) {
  const { line, area } = sparkPaths(values);
  return (
    <svg class={`spark ink-${ink}`} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      <path class="spark-area" d={area} />
      <path class="spark-line" d={line} vector-effect="non-scaling-stroke" />
    </svg>
  );
}

function runs(values: readonly (number | null)[]): [number, number][][] {
  const found: [number, number][][] = [];
  let run: [number, number][] = [];
  values.forEach((value, i) => {
    if (value !== null) run.push([i, value]);
    else if (run.length > 0) {
      found.push(run);
      run = [];
    }
  });
  return run.length > 0 ? [...found, run] : found;
}

const round = (value: number) => Math.round(value * 100) / 100;
