import type { Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Exchange } from './client-exchange.ts';
import type { Connector } from './connect.ts';
import { type ResponseEvents, ResponseParser } from './response-parser.ts';

export type PoolOptions = {
  readonly connector: Connector;
  /** Most connections at once. */
  readonly connections: number;
  /** Until the connection stands, TLS included. */
  readonly connectMs: number;
  /** Largest head of a response, bytes. */
  readonly maxHeaderBytes: number;
};

/** The grain of all time-outs here. One timer for all connections: one per request costs more than it is worth. */
const TICK_MS = 100;
/** How long a connection may stay idle where the server does not say (`Keep-Alive: timeout=`); below the 5 s of Apache and Node. */
const IDLE_MS = 4_000;
const MAX_IDLE_MS = 60_000;
/** Given up before the server does it: a request that meets its FIN on the way is lost. */
const IDLE_MARGIN_MS = 1_000;
/** An unsafe request, which nobody may send twice, takes no connection that has been idle longer: it could be closing just now. */
const TRUSTED_IDLE_MS = 1_000;

const ticksOf = (ms: number): number => Math.ceil(ms / TICK_MS);

/** Keep-alive connections to one host, HTTP/1.1, one exchange at a time on each. */
export class Pool {
  readonly options: PoolOptions;
  readonly #all = new Set<Connection>();
  /** The latest released is the first taken, so that what is not needed grows old. */
  readonly #idle: Connection[] = [];
  readonly #waiting = new Set<Exchange>();
  #clock: NodeJS.Timeout | null = null;
  #stopped = false;
  /** Tenths of seconds that passed while there were connections. */
  tick = 0;
  /** Exchanges that have not ended, whether they wait for a connection, a head or the rest of a body. */
  open = 0;

  constructor(options: PoolOptions) {
    this.options = options;
  }

  /** A deadline this far ahead, in ticks; never early. */
  deadline(ms: number): number {
    return this.tick + ticksOf(ms) + 1;
  }

  /** Begins the exchange on a free connection, now or when there is one. @param fresh on a new connection of its own */
  send(exchange: Exchange, fresh: boolean): void {
    if (this.#stopped) {
      exchange.fail(new AppError('upstream-unreachable', 'The upstream is not used any more', { retryable: true }));
      return;
    }
    if (fresh) {
      this.#open(exchange);
      return;
    }
    const free = this.#take(exchange.safe);
    if (free !== null) {
      exchange.begin(free);
      return;
    }
    this.#waiting.add(exchange);
    if (this.#all.size < this.options.connections) this.#open(exchange);
    else this.#startClock();
  }

  /** The exchange no longer waits. */
  forget(exchange: Exchange): void {
    this.#waiting.delete(exchange);
  }

  /** The connection's exchange is over, and it may carry another. */
  release(connection: Connection): void {
    const next = this.#next();
    if (next !== null) {
      next.begin(connection);
      return;
    }
    connection.idleUntil = this.tick + ticksOf(connection.idleMs);
    connection.idleSince = this.tick;
    this.#idle.push(connection);
  }

  connected(connection: Connection, own: Exchange | null): void {
    const next = own ?? this.#next();
    if (next === null) this.release(connection);
    else {
      this.#waiting.delete(next);
      next.begin(connection);
    }
  }

  closed(connection: Connection): void {
    this.#all.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at !== -1) this.#idle.splice(at, 1);
    if (this.#stopped || this.#all.size >= this.options.connections) return;
    for (const exchange of this.#waiting) {
      if (exchange.attempted) continue;
      this.#open(exchange);
      return;
    }
  }

  stop(): void {
    this.#stopped = true;
    if (this.#clock !== null) clearInterval(this.#clock);
    this.#clock = null;
    const gone = new AppError('upstream-reset', 'The connection to the upstream was closed', { sent: 'maybe' });
    for (const exchange of this.#waiting)
      exchange.fail(new AppError('upstream-unreachable', 'The upstream is not used any more', { retryable: true }));
    this.#waiting.clear();
    for (const connection of [...this.#all]) connection.destroy(gone);
  }

  #take(safe: boolean): Connection | null {
    for (;;) {
      const connection = this.#idle.at(-1);
      if (connection === undefined) return null;
      if (connection.idleUntil > this.tick) {
        if (!safe && this.tick - connection.idleSince > ticksOf(TRUSTED_IDLE_MS)) return null;
        this.#idle.pop();
        return connection;
      }
      this.#idle.pop();
      connection.destroy(null);
    }
  }

  #next(): Exchange | null {
    for (const exchange of this.#waiting) {
      this.#waiting.delete(exchange);
      return exchange;
    }
    return null;
  }

  #open(exchange: Exchange): void {
    exchange.attempted = true;
    this.#startClock();
    this.#all.add(new Connection(this, this.options.connector.open(), exchange));
  }

  #startClock(): void {
    if (this.#clock !== null) return;
    this.#clock = setInterval(() => this.#look(), TICK_MS);
    this.#clock.unref();
  }

  #look(): void {
    this.tick++;
    for (const connection of this.#all) connection.look(this.tick);
    for (const exchange of this.#waiting) if (exchange.deadline <= this.tick) exchange.expire();
    if (this.#all.size > 0 || this.#waiting.size > 0 || this.#clock === null) return;
    clearInterval(this.#clock);
    this.#clock = null;
  }
}

/** One connection to an upstream host. */
export class Connection implements ResponseEvents {
  readonly socket: Socket;
  readonly #pool: Pool;
  readonly #parser: ResponseParser;
  /** Opened for this one; it may have found another connection meanwhile. */
  #opener: Exchange | null;
  #exchange: Exchange | null = null;
  #ready = false;
  #gone = false;
  /** In ticks. */
  readonly #connectBy: number;
  idleUntil = 0;
  idleSince = 0;
  /** Exchanges that it has carried: only a connection that has served can have gone stale. */
  served = 0;

  constructor(pool: Pool, socket: Socket, opener: Exchange) {
    this.#pool = pool;
    this.socket = socket;
    this.#opener = opener;
    this.#connectBy = pool.deadline(pool.options.connectMs);
    this.#parser = new ResponseParser(this, pool.options.maxHeaderBytes);
    socket.on('data', (chunk: Buffer) => this.#data(chunk));
    socket.on('drain', () => this.#exchange?.drained());
    socket.on('end', () => this.#ended());
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy(new Error('closed')));
    socket.once(pool.options.connector.ready, () => this.#connected());
  }

  get idleMs(): number {
    const said = this.#parser.keepAliveMs;
    return said === null ? IDLE_MS : Math.min(MAX_IDLE_MS, said - IDLE_MARGIN_MS);
  }

  carry(exchange: Exchange, toHead: boolean): void {
    this.#exchange = exchange;
    this.#parser.expect(toHead);
  }

  look(tick: number): void {
    if (!this.#ready) {
      if (this.#connectBy <= tick)
        this.destroy(Object.assign(new Error('the connection did not stand in time'), { code: 'ETIMEDOUT', syscall: 'connect' }));
    } else if (this.#exchange !== null) {
      if (this.#exchange.deadline <= tick) this.#exchange.expire();
    } else if (this.idleUntil <= tick) this.destroy(null);
  }

  /** Ends the connection and fails what is on it. @param error null when nothing can be on it */
  destroy(error: unknown): void {
    if (this.#gone) return;
    this.#gone = true;
    this.socket.destroy();
    const exchange = this.#exchange ?? (this.#opener?.waits === true ? this.#opener : null);
    this.#exchange = null;
    this.#opener = null;
    if (exchange !== null) this.#pool.forget(exchange);
    this.#pool.closed(this);
    exchange?.broke(error ?? new Error('closed'));
  }

  interim(status: number, reason: string, rawHeaders: string[]): void {
    this.#exchange?.interim(status, reason, rawHeaders);
  }

  head(status: number, reason: string, rawHeaders: string[]): void {
    this.#exchange?.head(status, reason, rawHeaders);
  }

  data(chunk: Buffer): void {
    this.#exchange?.data(chunk);
  }

  end(trailers: readonly string[], reusable: boolean): void {
    const exchange = this.#exchange;
    if (exchange === null) return;
    this.#exchange = null;
    this.served++;
    if (reusable && exchange.uploaded && this.idleMs > 0) {
      // the client may have asked for a pause with the last piece; an idle connection has to hear its server's FIN
      if (this.socket.isPaused()) this.socket.resume();
      this.#pool.release(this);
    } else this.destroy(null);
    exchange.finish(trailers);
  }

  #connected(): void {
    if (this.#gone) return;
    this.#ready = true;
    const own = this.#opener?.waits === true ? this.#opener : null;
    this.#opener = null;
    this.#pool.connected(this, own);
  }

  #data(chunk: Buffer): void {
    const exchange = this.#exchange;
    // bytes that nobody asked for: whatever they are, they answer none of our requests
    if (exchange === null || this.#parser.over) {
      this.destroy(null);
      return;
    }
    exchange.begun = true;
    try {
      this.#parser.push(chunk);
    } catch (error) {
      this.destroy(error);
    }
  }

  #ended(): void {
    if (this.#exchange !== null && this.#parser.close()) return;
    this.destroy(new Error('the upstream closed the connection'));
  }
}
