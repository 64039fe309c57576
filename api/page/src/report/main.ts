/** A report's own script: draws its charts. Everything else in the file stands without it. */

import { choice, theme } from "../theme";
import { ReportChart } from "./chart";
import type { ReportData } from "./data";
import "uplot/dist/uPlot.min.css";
import "../styles/tokens.css";
import "../styles/base.css";
import "../styles/plot.css";
import "../styles/report.css";

const data = JSON.parse(document.getElementById("data")?.textContent ?? "{}") as ReportData;
const charts = [...document.querySelectorAll<HTMLElement>("[data-chart]")].flatMap((figure) => {
  const chart = data.charts[figure.dataset.chart ?? ""];
  return chart ? [new ReportChart(figure, chart, data.zone)] : [];
});

choice.value = "system"; // what a page from the same disk may have chosen is not this report's
theme.subscribe(() => charts.forEach((chart) => chart.repaint()));

/** On paper all is light, and as wide as the paper. */
function onPaper(printing: boolean): void {
  if (printing) document.documentElement.dataset.theme = "light";
  else delete document.documentElement.dataset.theme;
  choice.value = printing ? "light" : "system";
  for (const chart of charts) {
    chart.resize(printing);
    chart.repaint();
  }
}

addEventListener("beforeprint", () => onPaper(true));
addEventListener("afterprint", () => onPaper(false));
document.documentElement.dataset.drawn = String(charts.length);
