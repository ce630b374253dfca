import { CLOSE, PROTOCOL } from "./constants.js";
import type { Environment } from "./environment.js";
import { parseClose, parseFrame, type Frame } from "./frames.js";
import type { Transport } from "./rounds.js";

/** A connection, whatever carries it. */
export interface Link {
  /** Ends it; nothing of it is told any more. */
  close(): void;
}

/** Who is told of a connection. */
export interface Listener {
  frame(frame: Frame): void;
  /** It ended, or could not be opened. Nothing follows. */
  closed(code: number, reason: string): void;
}

/** Opens a connection to the address of a WebSocket, or of a stream of events. May throw, as the browser does. */
export const OPEN: Readonly<Record<Transport, (environment: Environment, url: URL, listener: Listener) => Link>> = {
  ws: openSocket,
  sse: openStream,
};

function openSocket(environment: Environment, url: URL, listener: Listener): Link {
  const socket = environment.open(url, PROTOCOL);
  socket.onmessage = ({ data }: MessageEvent<unknown>) => {
    listener.frame(parseFrame(data));
  };
  socket.onclose = ({ code, reason }) => {
    listener.closed(code, reason);
  };
  return {
    close() {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close(CLOSE.done);
    },
  };
}

/** An `EventSource` hears only the types that it listens to. */
const TYPES = ["hello", "set", "beat", "move"];

function openStream(environment: Environment, url: URL, listener: Listener): Link {
  const source = environment.follow(url);
  const listening = new AbortController();
  const { signal } = listening;
  const close = (): void => {
    listening.abort();
    source.close();
  };
  // Before it is told: a source that is not closed connects again by itself, and that is for the machine to decide.
  const end = (code: number, reason: string): void => {
    close();
    listener.closed(code, reason);
  };
  const hear = (type: string, heard: (data: unknown) => void): void => {
    source.addEventListener(
      type,
      ({ data }: MessageEvent<unknown>) => {
        heard(data);
      },
      { signal },
    );
  };
  for (const type of TYPES) {
    hear(type, (data) => {
      listener.frame(parseFrame(data));
    });
  }
  hear("close", (data) => {
    const { code, reason } = parseClose(data);
    end(code, reason);
  });
  hear("error", () => {
    end(CLOSE.abnormal, "");
  });
  return { close };
}
