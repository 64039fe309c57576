/** What a report's file carries for its charts, as vibezen/metrics/reports/as_html.py writes it. */

export interface ChartData {
  /** As the catalogue names it: `ms`, `USD`, `share`, … */
  unit: string;
  stacked: boolean;
  starts: number[];
  stops: number[];
  labels: string[];
  lines: (number | null)[][];
}

export interface ReportData {
  zone: string;
  charts: Record<string, ChartData>;
}

/** The parts of every column: per line its top, and the top of what lies below it. */
export function stack(lines: ChartData["lines"]): { tops: (number | null)[][]; floors: number[][] } {
  const below = new Array<number>(lines[0]?.length ?? 0).fill(0);
  const tops: (number | null)[][] = [];
  const floors: number[][] = [];
  for (const line of lines) {
    floors.push([...below]);
    tops.push(line.map((value, i) => (value === null ? null : (below[i] = (below[i] ?? 0) + value))));
  }
  return { tops, floors };
}

/** The middle of each step: where a column is pointed at. */
export function middles({ starts, stops }: ChartData): number[] {
  return starts.map((start, i) => (start + (stops[i] ?? start)) / 2);
}
