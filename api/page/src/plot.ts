/** One chart on a canvas: uPlot with our scales, inks and manners. Knows nothing of where its numbers come from. */

import uPlot from "uplot";
import { axisLabel, type Unit } from "./format";
import type { Ink } from "./overview";
import type { Span } from "./range";
import { color, fade } from "./theme";

export interface PlotLine {
  label: string;
  ink: Ink;
  fill?: boolean;
}

export interface PlotSpec {
  unit: Unit;
  lines: PlotLine[];
  /** In the raw unit: the scale reaches at least here, and never beyond there. */
  reach?: number;
  ceiling?: number;
  /** Whose time the axis tells; without it the reader's own. */
  zone?: string;
  /** Stacked columns instead of lines. */
  columns?: Columns;
}

/** Where each column ends, and per line where its piece of each column begins: the top of the piece below. */
export interface Columns {
  begins: number[];
  ends: number[];
  floors: number[][];
}

export interface PlotEvents {
  /** The crosshair stands on this point, here or in a chart beside this one; null when it left. */
  pointed: (index: number | null) => void;
  selected: (span: Span) => void;
  zoomedOut: () => void;
}

/** Starts of windows, and per line a raw value or null each. */
export type PlotData = { starts: number[]; columns: (number | null)[][] };

const CROSSHAIR = "crosshair";
const AXIS_FONT = '11px system-ui, -apple-system, "Segoe UI", sans-serif';
const AXIS_WIDTH = 46;
const AXIS_HEIGHT = 24;
const HEADROOM = 1.08;
/** Pixels between two marks of an axis, at least. */
const TIME_MARKS_APART = 64;
const VALUE_MARKS_APART = 32;
const WHOLE_STEPS = [1, 2, 5]
  .flatMap((step) => Array.from({ length: 10 }, (_, power) => step * 10 ** power))
  .sort((a, b) => a - b);

export class Plot {
  private readonly plot: uPlot;

  constructor(
    private readonly host: HTMLElement,
    private readonly spec: PlotSpec,
    events: PlotEvents,
  ) {
    this.plot = new uPlot(options(spec, size(host), events), [[], ...spec.lines.map(() => [])], host);
  }

  draw({ starts, columns }: PlotData, span: Span): void {
    const { scale } = this.spec.unit;
    const scaled = columns.map((column) => column.map((value) => (value === null ? null : value * scale)));
    this.plot.batch(() => {
      this.plot.setData([starts, ...scaled], false);
      this.plot.setScale("x", { min: span.from, max: span.to });
    });
  }

  /** Draw again with the inks of the current theme. */
  repaint(): void {
    this.plot.redraw(false, true);
  }

  /** To the size of its place, or to another one in pixels. */
  resize(to = size(this.host)): void {
    this.plot.setSize(to);
  }

  destroy(): void {
    this.plot.destroy();
  }
}

function size(host: HTMLElement): { width: number; height: number } {
  return { width: Math.max(host.clientWidth, 120), height: Math.max(host.clientHeight, 80) };
}

function options(
  spec: PlotSpec,
  { width, height }: { width: number; height: number },
  events: PlotEvents,
): uPlot.Options {
  const { unit, zone } = spec;
  const axis = { stroke: () => color("text-soft"), font: AXIS_FONT, ticks: { show: false } };
  return {
    width,
    height,
    padding: [6, 6, 0, 0],
    legend: { show: false },
    ...(zone ? { tzDate: (unix: number) => inZone(unix, zone) } : {}),
    scales: {
      x: { time: true, auto: false },
      y: { range: (_plot, _low, high) => [0, top(high, spec)] },
    },
    axes: [
      {
        ...axis,
        size: AXIS_HEIGHT,
        gap: 6,
        space: TIME_MARKS_APART,
        grid: { show: false },
        values: (_plot, marks, _axis, _space, apart) => timeMarks(marks, apart, zone),
        ...(spec.columns ? columnMarks(spec.columns, zone) : {}),
      },
      {
        ...axis,
        size: AXIS_WIDTH,
        gap: 6,
        space: VALUE_MARKS_APART,
        grid: { stroke: () => color("rule"), width: 1 },
        ...(unit.whole ? { incrs: WHOLE_STEPS } : {}),
        values: (_plot, marks) => marks.map((mark) => axisLabel(mark, unit)),
      },
    ],
    series: [{}, ...spec.lines.map((line) => (spec.columns ? pieces(line, spec.columns, unit.scale) : series(line)))],
    cursor: {
      y: false,
      move: onPoint,
      points: { size: 7, width: 2, fill: () => color("surface") },
      drag: { x: true, y: false, setScale: false, dist: 8 },
      sync: {
        key: CROSSHAIR,
        setSeries: false,
        filters: { pub: (type) => type === "mousemove" || type === "mouseleave", sub: () => true },
      },
      bind: { dblclick: () => () => (events.zoomedOut(), null) },
    },
    hooks: {
      setCursor: [(plot) => events.pointed(plot.cursor.idx ?? null)],
      setSelect: [(plot) => select(plot, events)],
    },
  };
}

function series(line: PlotLine): uPlot.Series {
  const ink = () => color(`ink-${line.ink}`);
  return {
    label: line.label,
    stroke: ink,
    width: 1.75,
    spanGaps: false, // a gap is a gap
    points: { show: true, size: 4, width: 0, fill: ink, filter: alone },
    ...(line.fill ? { fill: (plot: uPlot, index: number) => wash(plot, index, ink()) } : {}),
  };
}

/** The gap between two columns, as a share of the narrower one, and at most so many pixels. */
const BETWEEN = 0.22;
const BETWEEN_MOST = 28;
/** Pixels of a column at most; few columns would else be walls. */
const COLUMN_MOST = 72;

/** One line's piece of every column, as far up as the line's own point, from `floors` on. */
function pieces(line: PlotLine, { begins, ends, floors }: Columns, scale: number): uPlot.Series {
  const ink = () => color(`ink-${line.ink}`);
  const path: uPlot.Series.PathBuilder = (plot, index, first, last) => {
    const fill = new Path2D();
    for (let i = first; i <= last; i++) {
      const top = plot.data[index]?.[i];
      if (top == null) continue;
      const [from, to] = [begins[i] ?? 0, ends[i] ?? 0].map((at) => plot.valToPos(at, "x", true)) as [number, number];
      const gap = Math.min((to - from) * BETWEEN, BETWEEN_MOST * devicePixelRatio);
      const wide = Math.max(1, Math.min(to - from - gap, COLUMN_MOST * devicePixelRatio));
      const high = plot.valToPos(top, "y", true);
      const low = plot.valToPos((floors[index - 1]?.[i] ?? 0) * scale, "y", true);
      fill.rect((from + to - wide) / 2, high, wide, Math.max(low - high, 0));
    }
    return { fill, stroke: null };
  };
  return { label: line.label, fill: ink, paths: path, points: { show: false } };
}

/** A point between two gaps has no line to be seen by, so it is drawn as a dot. */
const alone: NonNullable<uPlot.Series.Points["filter"]> = (plot, index, show) => {
  const values = plot.data[index];
  if (!show || !values) return null;
  const [first, last] = plot.series[0]?.idxs ?? [0, values.length - 1];
  const dots: number[] = [];
  for (let i = first; i <= last; i++) {
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) dots.push(i);
  }
  return dots;
};

/** The area under a line: ink that fades from the line's highest point down to the axis. */
function wash(plot: uPlot, index: number, ink: string): CanvasGradient | string {
  const high = Math.max(0, ...Array.from(plot.data[index] ?? [], (value) => value ?? 0));
  const [from, to] = [plot.valToPos(high, "y", true), plot.valToPos(0, "y", true)];
  if (!Number.isFinite(from) || !(to > from)) return fade(ink, 0.1);
  const gradient = plot.ctx.createLinearGradient(0, from, 0, to);
  gradient.addColorStop(0, fade(ink, 0.26));
  gradient.addColorStop(1, fade(ink, 0.03));
  return gradient;
}

/** The crosshair stands on points, not between them, so that it agrees with the values it names. */
function onPoint(plot: uPlot, left: number, top: number): [number, number] {
  const start = left < 0 ? undefined : plot.data[0][plot.posToIdx(left)];
  return [start === undefined ? left : plot.valToPos(start, "x"), top];
}

function top(high: number | null, { unit, reach, ceiling }: PlotSpec): number {
  const needed = Math.max((high ?? 0) * HEADROOM, (reach ?? 0) * unit.scale);
  const capped = ceiling === undefined ? needed : Math.min(needed, ceiling * unit.scale);
  return capped > 0 ? capped : 1;
}

function select(plot: uPlot, events: PlotEvents): void {
  const { left, width } = plot.select;
  if (width <= 0) return;
  const span = { from: plot.posToVal(left, "x"), to: plot.posToVal(left + width, "x") };
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  events.selected(span);
}

const DAY = 86_400;
/** Less than a day, by what a change of the clock may take from one. */
const ALMOST_DAY = DAY - 7200;

/** A mark in the middle of a column, at as many of them as there is room for. */
function columnMarks({ begins, ends }: Columns, zone?: string): Pick<uPlot.Axis, "splits" | "values"> {
  const middles = begins.map((begin, i) => (begin + (ends[i] ?? begin)) / 2);
  const apart = Math.max(...begins.map((begin, i) => (ends[i] ?? begin) - begin), 0);
  const shown = (plot: uPlot) => {
    const every = Math.ceil((begins.length * TIME_MARKS_APART * devicePixelRatio) / Math.max(plot.bbox.width, 1));
    return begins.flatMap((_, i) => (i % every === 0 ? [i] : []));
  };
  return {
    splits: (plot) => shown(plot).map((i) => middles[i] ?? 0),
    values: (plot) => timeMarks(shown(plot).map((i) => begins[i] ?? 0), apart >= ALMOST_DAY ? DAY : apart, zone),
  };
}

/** Hours and minutes; seconds where marks are closer than a minute, the date where a day begins. */
function timeMarks(marks: number[], apart: number, zone?: string): string[] {
  const two = (number: number) => String(number).padStart(2, "0");
  return marks.map((mark) => {
    const date = zone ? inZone(mark, zone) : new Date(mark * 1000);
    const [hours, minutes, seconds] = [date.getHours(), date.getMinutes(), date.getSeconds()];
    const midnight = hours + minutes + seconds === 0;
    if (midnight || apart >= DAY) return date.toLocaleDateString("en", { day: "numeric", month: "short" });
    return `${two(hours)}:${two(minutes)}${apart < 60 ? `:${two(seconds)}` : ""}`;
  });
}

/** A date whose local parts are those of the zone at that time. */
function inZone(unix: number, zone: string): Date {
  return uPlot.tzDate(new Date(unix * 1000), zone === "UTC" ? "Etc/UTC" : zone);
}
