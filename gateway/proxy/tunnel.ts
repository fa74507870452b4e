import type { Socket } from 'node:net';
import { reset } from './connection.ts';
import { closeFrame, FrameTracker } from './frames.ts';

/** What ended a tunnel first. `drained` and `moved` = the gateway did, because it stops or because the context's traffic went elsewhere. */
export type TunnelEnd = 'client-closed' | 'client-reset' | 'upstream-closed' | 'upstream-reset' | 'drained' | 'moved';

export type TunnelReport = {
  readonly end: TunnelEnd;
  /** Bytes relayed from the client and to it, without the heads. */
  readonly bytesUp: number;
  readonly bytesDown: number;
};

/** Why the gateway ends a tunnel, with the WebSocket close code that says so (RFC 6455 7.4.1, IANA registry). */
const CLOSURES = {
  drained: { code: 1001, reason: 'the gateway is shutting down' },
  /** 1012, "Service Restart": clients come back, and are then sent where the traffic went. */
  moved: { code: 1012, reason: 'the service has moved' },
} as const;

export type Closure = keyof typeof CLOSURES;

/** What is left to write to one side when the other is gone may take so long, ms. */
const LAST_WORDS_MS = 30_000;
/** Idle time after which the kernel asks whether the peer is still there, ms. A tunnel has no idle limit, a peer that vanished must still be found. */
const KEEP_ALIVE_MS = 60_000;

/** One way through a tunnel. Somebody else's pipe moves the bytes until the gateway ends the tunnel; then this does what is left to do. */
class Way {
  readonly source: Socket;
  readonly sink: Socket;
  readonly #frames: FrameTracker | null;
  /** The Close frame for the sink that waits for a boundary. */
  #farewell: Buffer | null = null;
  /** The gateway moves the bytes now. */
  #taken = false;
  #left = false;
  bytes = 0;

  constructor(source: Socket, sink: Socket, webSocket: boolean) {
    this.source = source;
    this.sink = sink;
    this.#frames = webSocket ? new FrameTracker() : null;
  }

  /** The source has sent its Close frame. */
  get closed(): boolean {
    return this.#frames?.closed === true;
  }

  /** Nothing more will be written to the sink. */
  get over(): boolean {
    return this.#taken && this.#farewell === null;
  }

  /** Ends the source's socket once what was written to it is out. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.source.destroySoon();
  }

  /** Stops relaying at the next boundary and writes `farewell` there; without frames, at once and without a word. */
  take(farewell: Buffer): void {
    this.#taken = true;
    this.source.unpipe(this.sink);
    if (this.#frames === null) this.sink.end();
    else {
      this.#farewell = farewell;
      if (this.#frames.atBoundary) this.#part();
    }
    this.#goOn();
  }

  /** Just after the pipe has written it, in the same turn: what was counted is what was written. */
  pass(chunk: Buffer): void {
    if (!this.#taken) {
      this.bytes += chunk.length;
      this.#frames?.read(chunk);
      return;
    }
    if (this.#frames === null) return;
    let at = 0;
    if (this.#farewell !== null) {
      at = this.#frames.read(chunk, true);
      this.bytes += at;
      if (this.sink.writable) this.sink.write(chunk.subarray(0, at));
      if (this.#frames.atBoundary) this.#part();
      else if (this.sink.writableNeedDrain) this.source.pause();
      this.#goOn();
    }
    // what comes behind our Close goes nowhere; only the other's Close is looked for
    if (at < chunk.length) this.#frames.read(chunk.subarray(at));
  }

  #part(): void {
    if (this.sink.writable && this.#farewell !== null) this.sink.write(this.#farewell);
    this.#farewell = null;
  }

  /** At the sink's pace while there is something to relay, else freely. */
  #goOn(): void {
    if (this.#farewell !== null && this.sink.writableNeedDrain) this.sink.once('drain', () => this.source.resume());
    else this.source.resume();
  }
}

/**
 * A connection that speaks another protocol than HTTP now: two sockets and a pipe each way, laid by whoever made it, in the same turn of the event
 * loop. When one side is gone the other has nobody to talk to; a FIN alone goes through the pipe and leaves the way back open. No idle limit.
 */
export class Tunnel {
  readonly #client: Socket;
  readonly #up: Way;
  readonly #down: Way;
  #end: TunnelEnd | null = null;
  #closing = false;
  #timer: NodeJS.Timeout | null = null;
  /** How long the farewells may take once both were said; 0 when that clock runs already. */
  #handshakeMs = 0;
  #open = 2;
  /** For whoever holds it, and for the report; both called once, when both sockets are closed. */
  onClosed: (() => void) | null = null;
  onEnd: ((report: TunnelReport) => void) | null = null;

  /** @param halfClosedMs how long one way may stand still when the other has had its FIN */
  constructor(client: Socket, upstream: Socket, webSocket: boolean, halfClosedMs: number) {
    this.#client = client;
    this.#up = new Way(client, upstream, webSocket);
    this.#down = new Way(upstream, client, webSocket);
    for (const way of [this.#up, this.#down]) {
      const { source } = way;
      // ahead of the middleware's own listeners, which would make a clean end of a reset
      source.prependListener('error', () => this.#broken(way));
      source.on('end', () => {
        this.#end ??= way === this.#up ? 'client-closed' : 'upstream-closed';
        if (this.#closing) this.#settle();
        else if (this.#open === 2 && this.#timer === null) this.#watchHalf(halfClosedMs);
      });
      source.once('close', () => this.#gone(way));
    }
    // before the first byte flows and behind the pipes: a listener that is there before them would get what the middleware puts back, alone
    process.nextTick(() => {
      for (const way of [this.#up, this.#down])
        way.source.on('data', (chunk: Buffer) => {
          way.pass(chunk);
          if (this.#closing) this.#settle();
        });
      // the middleware has turned it on with the system's two hours
      if (!client.destroyed) client.setKeepAlive(true, KEEP_ALIVE_MS);
      if (!upstream.destroyed) upstream.setKeepAlive(true, KEEP_ALIVE_MS);
    });
  }

  /**
   * Ends it from our side. A WebSocket gets a Close frame both ways, each at the next frame boundary, then `handshakeMs` for the answers; any other
   * protocol a FIN. What still stands after `limitMs` is destroyed.
   */
  close(closure: Closure, handshakeMs: number, limitMs: number): void {
    if (this.#closing || this.#open < 2) return;
    this.#end ??= closure;
    this.#limit(limitMs);
    // the two are parting by themselves, and a second Close frame would be one too many
    if (this.#up.closed || this.#down.closed) return;
    this.#closing = true;
    this.#limit(limitMs, handshakeMs);
    const { code, reason } = CLOSURES[closure];
    this.#down.take(closeFrame(code, reason, false));
    this.#up.take(closeFrame(code, reason, true));
    this.#settle();
  }

  destroy(): void {
    this.#up.source.destroy();
    this.#down.source.destroy();
  }

  /** A FIN may mean that a peer is done or that it is gone, and only writing tells; so the way back is open for as long as it is used. */
  #watchHalf(ms: number): void {
    const before = this.#up.bytes + this.#down.bytes;
    this.#timer = setTimeout(() => {
      if (this.#up.bytes + this.#down.bytes === before) this.destroy();
      else this.#watchHalf(ms);
    }, ms);
  }

  #limit(ms: number, handshakeMs = 0): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#handshakeMs = handshakeMs;
    this.#timer = setTimeout(() => this.destroy(), ms);
  }

  /** Whoever has been told that it is over, and has said so too, goes; the clock for the others starts when both have been told. */
  #settle(): void {
    const [up, down] = [this.#up, this.#down];
    if (down.over && (up.closed || up.source.readableEnded)) up.leave();
    if (up.over && (down.closed || down.source.readableEnded)) down.leave();
    if (this.#handshakeMs > 0 && up.over && down.over) this.#limit(this.#handshakeMs);
  }

  #broken(way: Way): void {
    this.#end ??= way === this.#up ? 'client-reset' : 'upstream-reset';
    if (!this.#closing) reset(way.sink);
  }

  #gone(way: Way): void {
    this.#open--;
    if (this.#open > 0) {
      if (this.#closing) return;
      way.sink.destroySoon();
      this.#limit(LAST_WORDS_MS);
      return;
    }
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#end ??= this.#client.errored ? 'client-reset' : 'upstream-reset';
    this.onEnd?.({ end: this.#end, bytesUp: this.#up.bytes, bytesDown: this.#down.bytes });
    this.onClosed?.();
  }
}
