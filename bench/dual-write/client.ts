import { createConnection, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { percentile, round } from '../report.ts';
import { bodyLength, HEAD_END } from './http.ts';

/**
 * Commands on bare sockets, each with an Idempotency-Key of its own; prints one JSON line.
 * Closed loop: every connection sends its next one when it has its answer. Open loop (`--rate`): commands are due at fixed times, and each latency counts
 * from the moment its command was due, however late a connection was free.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '5' },
    warm: { type: 'string', default: '1' },
    connections: { type: 'string', default: '64' },
    rate: { type: 'string' },
  },
});
const target = new URL(positionals[0]!);
const seconds = Number(values.seconds);
const warm = Number(values.warm);
const rate = values.rate === undefined ? null : Number(values.rate);

/** 200 bytes, about what a small order is. */
const filler = 'x'.repeat(115);
const body = `{"userId":"user-1","items":[{"productId":1,"quantity":2,"price":12.5}],"note":"${filler}"}`;
const run = `${process.pid}-${Date.now().toString(36)}`;
let made = 0;
const request = (): string => {
  made += 1;
  return (
    `POST ${target.pathname} HTTP/1.1\r\nHost: ${target.host}\r\nAuthorization: Bearer client-${made % 50}\r\n` +
    `Idempotency-Key: ${run}-${made}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  );
};

const statuses = new Map<string, number>();
const latencies: number[] = [];
let errors = 0;
let measured = 0;
let measuring = false;
let ending = false;
const due: number[] = [];
const idle: Connection[] = [];

type Connection = { send(dueAt: number): void };

const next = (connection: Connection): void => {
  if (rate === null) {
    if (!ending) connection.send(performance.now());
    return;
  }
  const first = due.shift();
  if (first === undefined) idle.push(connection);
  else connection.send(first);
};

const connect = (): Connection => {
  let socket: Socket;
  let pending = Buffer.alloc(0);
  let began = 0;
  let busy = false;
  const finish = (status: string): void => {
    busy = false;
    if (measuring) {
      measured += 1;
      latencies.push(performance.now() - began);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if (!status.startsWith('2')) errors += 1;
    }
    next(connection);
  };
  const open = (): void => {
    socket = createConnection({ host: target.hostname, port: Number(target.port), noDelay: true });
    socket.on('data', (chunk) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      const end = pending.indexOf(HEAD_END);
      if (end < 0) return;
      const head = pending.toString('latin1', 0, end);
      const length = end + HEAD_END.length + bodyLength(head);
      if (pending.length < length) return;
      pending = pending.subarray(length);
      finish(head.slice(9, 12));
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      pending = Buffer.alloc(0);
      if (ending) return;
      open();
      if (busy) finish('lost');
    });
  };
  const connection: Connection = {
    send(dueAt) {
      began = dueAt;
      busy = true;
      socket.write(request());
    },
  };
  open();
  return connection;
};

const all = Array.from({ length: Number(values.connections) }, connect);
for (const connection of all) next(connection);
const start = performance.now();
let scheduled = 0;
const clock =
  rate === null
    ? null
    : setInterval(() => {
        const until = ((performance.now() - start) / 1000) * rate;
        while (scheduled < until) {
          const at = start + (scheduled++ / rate) * 1000;
          const connection = idle.pop();
          if (connection) connection.send(at);
          else due.push(at);
        }
      }, 1);

setTimeout(() => {
  measuring = true;
  const from = performance.now();
  setTimeout(() => {
    measuring = false;
    ending = true;
    if (clock) clearInterval(clock);
    const took = (performance.now() - from) / 1000;
    process.stdout.write(
      `${JSON.stringify({
        requests: measured,
        errors: errors + due.length,
        seconds: round(took, 3),
        p50Ms: round(percentile(latencies, 0.5), 3),
        p99Ms: round(percentile(latencies, 0.99), 3),
        statuses: Object.fromEntries(statuses),
      })}\n`,
      () => process.exit(0),
    );
  }, seconds * 1000);
}, warm * 1000);
