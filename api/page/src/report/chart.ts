/** One chart of a report: drawn once, pointed at together with all others, drawn again for another theme or paper. */

import { text } from "../format";
import type { Ink } from "../overview";
import { Plot, type PlotData, type PlotSpec } from "../plot";
import { type ChartData, middles, stack } from "./data";
import { unitOf } from "./units";

const PAPER = { width: 700, height: 220 };
const INKS: readonly Ink[] = ["blue", "amber", "jade", "coral", "violet", "plum"];

export class ReportChart {
  private readonly plot: Plot;
  private readonly data: PlotData;
  private readonly values: HTMLElement[];
  private readonly at: HTMLElement | null;

  constructor(
    figure: HTMLElement,
    private readonly chart: ChartData,
    zone: string,
  ) {
    const host = figure.querySelector<HTMLElement>(".chart");
    if (!host) throw new Error("a chart has no place");
    this.values = [...figure.querySelectorAll<HTMLElement>(".legend b")];
    this.at = figure.querySelector(".panel-at");
    const names = [...figure.querySelectorAll(".legend-name")].map((name) => name.textContent ?? "");
    const { spec, data } = plotted(chart, names, zone);
    this.data = data;
    this.plot = new Plot(host, spec, {
      pointed: (index) => this.point(index),
      selected: () => undefined,
      zoomedOut: () => undefined,
    });
    this.draw();
    this.point(null);
    new ResizeObserver(() => this.resize()).observe(host);
  }

  draw(): void {
    const { starts, stops } = this.chart;
    this.plot.draw(this.data, { from: starts[0] ?? 0, to: stops.at(-1) ?? 1 });
  }

  repaint(): void {
    this.plot.repaint();
  }

  /** `onPaper`: as wide as a page, whatever the screen's width; the style sheet then fits it to the paper. */
  resize(onPaper = false): void {
    this.plot.resize(onPaper ? PAPER : undefined);
  }

  /** Name the values under the crosshair; without one there are none to name. */
  private point(index: number | null): void {
    const unit = unitOf(this.chart.unit);
    if (this.at) this.at.textContent = index === null ? "" : (this.chart.labels[index] ?? "");
    this.values.forEach((place, i) => {
      place.textContent = index === null ? "" : text(this.chart.lines[i]?.[index], unit);
    });
  }
}

function plotted(chart: ChartData, names: string[], zone: string): { spec: PlotSpec; data: PlotData } {
  const lines = chart.lines.map((_, i) => ({
    label: names[i] ?? "",
    ink: INKS[i % INKS.length] as Ink,
    fill: chart.lines.length === 1,
  }));
  const unit = unitOf(chart.unit);
  const spec: PlotSpec = { unit, lines, zone, ...(chart.unit === "share" ? { ceiling: 1 } : {}) };
  if (!chart.stacked) return { spec, data: { starts: chart.starts, columns: chart.lines } };
  const { tops, floors } = stack(chart.lines);
  return {
    spec: { ...spec, columns: { begins: chart.starts, ends: chart.stops, floors } },
    data: { starts: middles(chart), columns: tops },
  };
}
