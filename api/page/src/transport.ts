/** Three ways for messages to arrive. Each opens at once, reports through its handlers, and ends with `close()`. */

import type { Api } from "./api";
import type { Message, Realtime } from "./wire";

export type TransportName = "websocket" | "sse" | "polling";

/** An answer of `/api/metrics/realtime`, with the local times of asking and of receiving. */
export interface Polled {
  type: "realtime";
  realtime: Realtime;
  sent: number;
  received: number;
}

export type Incoming = Message | Polled;

export interface Handlers {
  message: (message: Incoming) => void;
  /** Once, when nothing more will come; never after `close()`. */
  ended: () => void;
}

export interface Transport {
  close: () => void;
  /** Ask for the server's time; only where the way back is open. */
  ping?: (t: number) => void;
}

/** Open a transport that goes on after the message `since`, where that is known. */
export type Opener = (since: string | null, handlers: Handlers) => Transport;

export const POLL_EVERY = 5000;

const EVENTS = ["snapshot", "frame", "alert", "gap", "heartbeat"] as const;

export function websocket(api: Api): Opener {
  return (since, handlers) => {
    const socket = new WebSocket(api.live("ws", since));
    const ended = once(handlers.ended);
    socket.onmessage = (event) => handlers.message(JSON.parse(String(event.data)) as Message);
    socket.onclose = ended.call;
    socket.onerror = ended.call;
    return {
      close: () => {
        ended.cancel();
        socket.onmessage = null;
        socket.close();
      },
      ping: (t) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "ping", t }));
      },
    };
  };
}

export function sse(api: Api): Opener {
  return (since, handlers) => {
    const source = new EventSource(api.live("api/stream", since));
    const ended = once(handlers.ended);
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => handlers.message(JSON.parse(String(event.data)) as Message));
    }
    const close = () => {
      ended.cancel();
      source.close();
    };
    source.onerror = () => {
      source.close(); // it would reconnect by itself, but not change to another way
      ended.call();
    };
    return { close };
  };
}

export function polling(api: Api, now: () => number): Opener {
  return (_since, handlers) => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const poll = async () => {
      const sent = now();
      try {
        const realtime = await api.realtime(stop.signal);
        if (stop.signal.aborted) return;
        timer = setTimeout(poll, POLL_EVERY);
        handlers.message({ type: "realtime", realtime, sent, received: now() });
      } catch {
        if (!stop.signal.aborted) handlers.ended();
      }
    };
    void poll();
    return {
      close: () => {
        stop.abort();
        clearTimeout(timer);
      },
    };
  };
}

function once(action: () => void): { call: () => void; cancel: () => void } {
  let left: (() => void) | null = action;
  return {
    call: () => {
      const now = left;
      left = null;
      now?.();
    },
    cancel: () => {
      left = null;
    },
  };
}
