/** What the server sends, as it sends it. Times are Unix seconds; a number that does not exist is null, never 0. */

/** One metric now: over the newest minute, beside the minute before. Counters' `value` is per second. */
export interface MetricNow {
  family: string;
  unit: string;
  kind: "distribution" | "counter" | "ratio" | "gauge";
  better: "lower" | "higher" | null;
  value: number | null;
  previous: number | null;
  change: number | null;
  count: number | null;
  rate: number | null;
  sum: number | null;
  mean: number | null;
  min: number | null;
  max: number | null;
  last: number | null;
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

/** `GET /api/metrics/realtime`; also part of every snapshot and frame. */
export interface Realtime {
  at: number;
  as_of: number | null;
  window: number;
  demo: boolean;
  version: string;
  metrics: Record<string, MetricNow>;
}

/** The aggregate of one metric in one window. */
export type Field = "count" | "sum" | "min" | "max" | "last" | "p50" | "p95" | "p99";
export type Cell = Partial<Record<Field, number | null>>;

export interface LiveWindow {
  start: number;
  metrics: Record<string, Cell>;
}

export interface Snapshot {
  type: "snapshot";
  id: string;
  at: number;
  width: number;
  windows: LiveWindow[];
  realtime: Realtime;
}

/** Changed windows, with absolute values; `recorded` tells when the events shown here first were recorded. */
export interface Frame {
  type: "frame";
  id: string;
  at: number;
  recorded: { newest: number; oldest: number } | null;
  windows: LiveWindow[];
  realtime: Realtime;
}

/** The position asked for is gone; a snapshot follows. */
export interface Gap {
  type: "gap";
  id: string;
}

export interface Heartbeat {
  type: "heartbeat";
  id: string;
  at: number;
}

/** One transition of an alert. */
export interface Alert {
  type: "alert";
  id: string;
  alert: Record<string, unknown>;
}

/** Answer to our ping, with our own time in it. */
export interface Pong {
  type: "pong";
  t: number;
  at: number;
}

export type Message = Snapshot | Frame | Gap | Alert | Heartbeat | Pong;

export interface History {
  metric: string;
  from: number;
  to: number;
  step: number;
  as_of: number | null;
  series: { agg: string; labels: Record<string, string>; points: [number, number | null][] }[];
}

export interface Failure {
  error: { code: string; message: string; field?: string };
}
