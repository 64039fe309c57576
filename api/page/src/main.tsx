import { render } from "preact";
import { App } from "./app";
import { Desk } from "./desk";
import "uplot/dist/uPlot.min.css";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/bar.css";
import "./styles/tiles.css";
import "./styles/plot.css";
import "./styles/panels.css";

const place = document.getElementById("page");
if (place) {
  const desk = new Desk();
  desk.start();
  render(<App desk={desk} />, place);
}
