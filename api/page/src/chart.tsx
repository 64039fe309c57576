/** A chart that follows the desk: redrawn at every paint, sized by its place, with the crosshair shared. */

import { type Signal, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Desk } from "./desk";
import type { PanelSpec } from "./overview";
import { Plot, type PlotData } from "./plot";
import type { Span } from "./range";
import { theme } from "./theme";

export interface ChartView {
  /** What the chart shows at the last paint. */
  data: () => PlotData;
  label: () => string;
  pointed: Signal<number | null>;
}

const MIN_ZOOM = 60;

export function Chart({ desk, panel, view }: { desk: Desk; panel: PanelSpec; view: ChartView }) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<Plot | null>(null);

  useEffect(() => {
    if (!host.current) return;
    const drawn = new Plot(host.current, panel, {
      pointed: (index) => {
        view.pointed.value = index;
      },
      selected: (span) => desk.choose(zoomed(span)),
      zoomedOut: () => desk.zoomOut(),
    });
    plot.current = drawn;
    drawn.draw(view.data(), desk.span);
    const sized = new ResizeObserver(() => drawn.resize());
    sized.observe(host.current);
    return () => {
      sized.disconnect();
      drawn.destroy();
      plot.current = null;
    };
  }, [panel]);

  useSignalEffect(() => {
    desk.painter.paints.value; // subscribes
    plot.current?.draw(view.data(), desk.span);
    host.current?.setAttribute("aria-label", view.label());
  });

  useSignalEffect(() => {
    theme.value; // subscribes
    plot.current?.repaint();
  });

  return <div class="chart" ref={host} role="img" aria-label={panel.title} />;
}

/** At least a minute, or there would be nothing but a few points. */
function zoomed({ from, to }: Span) {
  const middle = (from + to) / 2;
  const half = Math.max(to - from, MIN_ZOOM) / 2;
  return { from: { at: middle - half }, to: { at: middle + half } };
}
