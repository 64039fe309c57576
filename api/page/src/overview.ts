/** What the Overview shows: its tiles and its panels, as data. */

import { UNITS, type Unit } from "./format";
import type { Wanted } from "./past";
import type { MetricNow } from "./wire";

export type Ink = "jade" | "amber" | "coral" | "blue" | "violet" | "plum";

export interface Line extends Wanted {
  label: string;
  ink: Ink;
  fill?: boolean;
}

export interface PanelSpec {
  id: string;
  title: string;
  /** What the reader sees, in one plain sentence. */
  hint: string;
  unit: Unit;
  lines: Line[];
  /** The scale always reaches at least this raw value, so that small noise does not look like a storm. */
  reach?: number;
  /** The scale never goes beyond this raw value. */
  ceiling?: number;
  wide?: boolean;
}

export interface Section {
  id: string;
  title: string;
  panels: PanelSpec[];
}

export interface TileFigure {
  metric: string;
  /** The number of `/api/metrics/realtime` that is shown, as it is. */
  field: keyof MetricNow & ("value" | "p50" | "p95");
  label?: string;
}

export interface TileSpec {
  id: string;
  title: string;
  hint: string;
  unit: Unit;
  figures: [TileFigure, ...TileFigure[]];
  spark: Line;
}

const latency = (reading: "p50" | "p95" | "p99", ink: Ink, fill = false): Line => ({
  metric: "response_time",
  reading,
  label: reading,
  ink,
  fill,
});
const calls: Line = { metric: "api_calls", reading: "perSecond", label: "calls", ink: "blue", fill: true };
const errors: Line = { metric: "error_rate", reading: "mean", label: "errors", ink: "coral", fill: true };
const hits: Line = { metric: "cache_hit_rate", reading: "mean", label: "hits", ink: "jade", fill: true };
const tokens: Line = { metric: "tokens", reading: "perSecond", label: "tokens", ink: "violet", fill: true };
const cost: Line = { metric: "cost", reading: "perSecond", label: "cost", ink: "amber", fill: true };

export const TILES: TileSpec[] = [
  {
    id: "requests",
    title: "Requests",
    hint: "Calls to AI providers per second, over the newest minute.",
    unit: UNITS.perSecond,
    figures: [{ metric: "api_calls", field: "value" }],
    spark: calls,
  },
  {
    id: "response-time",
    title: "Response time",
    hint: "Half of all answers came faster than p50, nineteen in twenty faster than p95, over the newest minute.",
    unit: UNITS.ms,
    figures: [
      { metric: "response_time", field: "p50", label: "p50" },
      { metric: "response_time", field: "p95", label: "p95" },
    ],
    spark: latency("p50", "jade", true),
  },
  {
    id: "error-rate",
    title: "Error rate",
    hint: "Share of operations that failed, over the newest minute.",
    unit: UNITS.share,
    figures: [{ metric: "error_rate", field: "value" }],
    spark: errors,
  },
  {
    id: "cache-hit-rate",
    title: "Cache hit rate",
    hint: "Share of look-ups answered from the cache, over the newest minute.",
    unit: UNITS.share,
    figures: [{ metric: "cache_hit_rate", field: "value" }],
    spark: hits,
  },
  {
    id: "tokens",
    title: "Tokens",
    hint: "Tokens of every type used per minute.",
    unit: UNITS.perMinute,
    figures: [{ metric: "tokens", field: "value" }],
    spark: tokens,
  },
  {
    id: "cost",
    title: "Cost",
    hint: "Estimated cost, if the newest minute went on for an hour.",
    unit: UNITS.dollarsPerHour,
    figures: [{ metric: "cost", field: "value" }],
    spark: cost,
  },
];

export const SECTIONS: Section[] = [
  {
    id: "service",
    title: "Service",
    panels: [
      {
        id: "response-time",
        title: "Response time",
        hint: "How long one operation took: half were faster than p50, 1 in 20 slower than p95, 1 in 100 slower than p99.",
        unit: UNITS.ms,
        lines: [latency("p50", "jade", true), latency("p95", "amber"), latency("p99", "coral")],
        wide: true,
      },
      {
        id: "throughput",
        title: "Throughput",
        hint: "Calls to AI providers per second.",
        unit: UNITS.perSecond,
        lines: [calls],
      },
      {
        id: "error-rate",
        title: "Error rate",
        hint: "Share of operations that failed.",
        unit: UNITS.share,
        lines: [errors],
        reach: 0.05,
        ceiling: 1,
      },
      {
        id: "cache-hit-rate",
        title: "Cache hit rate",
        hint: "Share of look-ups answered from the cache.",
        unit: UNITS.share,
        lines: [hits],
        reach: 1,
        ceiling: 1,
      },
      {
        id: "load",
        title: "Load",
        hint: "Operations running at once, and operations waiting for their turn.",
        unit: UNITS.count,
        lines: [
          { metric: "concurrency", reading: "last", label: "running", ink: "blue", fill: true },
          { metric: "queue_depth", reading: "last", label: "queued", ink: "amber" },
        ],
        reach: 4,
      },
    ],
  },
  {
    id: "spend",
    title: "Spend",
    panels: [
      {
        id: "tokens",
        title: "Tokens",
        hint: "Tokens of every type per minute.",
        unit: UNITS.perMinute,
        lines: [tokens],
      },
      { id: "cost", title: "Cost", hint: "Estimated cost per hour.", unit: UNITS.dollarsPerHour, lines: [cost] },
    ],
  },
  {
    id: "quality",
    title: "Quality",
    panels: [
      {
        id: "confidence",
        title: "Confidence",
        hint: "How sure the AI was of its solutions, from 0 to 1: the mean.",
        unit: UNITS.score,
        lines: [{ metric: "confidence_score", reading: "mean", label: "mean", ink: "violet", fill: true }],
        reach: 1,
        ceiling: 1,
      },
      {
        id: "thinking-steps",
        title: "Thinking steps",
        hint: "Sequential thinking steps per task: the middle task, and 1 in 20 with more.",
        unit: UNITS.count,
        lines: [
          { metric: "thinking_steps", reading: "p50", label: "p50", ink: "plum", fill: true },
          { metric: "thinking_steps", reading: "p95", label: "p95", ink: "amber" },
        ],
        reach: 5,
      },
    ],
  },
];

/** Every line that is drawn anywhere. */
export const LINES: Line[] = [
  ...TILES.map((tile) => tile.spark),
  ...SECTIONS.flatMap((section) => section.panels.flatMap((panel) => panel.lines)),
];
