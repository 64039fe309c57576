/** Before the first event: how to send one. */

import { useSignal } from "@preact/signals";

export const SNIPPET = `from vibezen.metrics import MetricsCollector
with MetricsCollector() as collector:
    collector.record_nowait("response_time", 120, {"provider": "openai"})`;

export function Empty() {
  const copied = useSignal(false);
  const copy = async () => {
    await navigator.clipboard.writeText(`${SNIPPET}\n`);
    copied.value = true;
  };
  return (
    <section class="empty" aria-labelledby="empty-title">
      <h2 id="empty-title">Waiting for the first event</h2>
      <p>
        Everything runs. Send one event from any Python program on this machine, and it appears here within seconds:
      </p>
      <div class="snippet">
        <pre>
          <code>{SNIPPET}</code>
        </pre>
        {navigator.clipboard && (
          <button type="button" class="button" onClick={() => void copy()}>
            {copied.value ? "Copied" : "Copy"}
          </button>
        )}
      </div>
      <p class="empty-note">
        Or see the page at work with simulated traffic: <code>make demo</code>
      </p>
    </section>
  );
}
