import { createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { openWorkshop } from '../processes.ts';
import { shadowed, startBanyan } from '../proxy/banyan.ts';
import { rssMiB } from '../proxy/usage.ts';
import { type BenchOptions, machine, median, percentile, type Report, round } from '../report.ts';

/** Scenarios 10 and 11 of docs/parity.md: large answers and event streams through a gateway that mirrors every query. */

const BYTES = 50 * 1024 * 1024;
const CLIENTS = 20;
const PIECE = 64 * 1024;
const EVENTS = 200;
const ROUNDS = 10;
const SAMPLE_MS = 25;

const piece = randomFillSync(Buffer.alloc(PIECE));

/** Answers `/api/…/file` with so many bytes, as fast as they are taken; and events on demand. */
const startSide = async (bytes: number, onStream: (res: ServerResponse) => void): Promise<{ url: string; server: Server }> => {
  const server = createServer((req: IncomingMessage, res: ServerResponse) => {
    req.resume();
    if (req.url!.endsWith('/events')) {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.flushHeaders();
      onStream(res);
      return;
    }
    res.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes });
    let left = bytes;
    const more = (): void => {
      while (left > 0) {
        const part = piece.subarray(0, Math.min(PIECE, left));
        left -= part.length;
        if (!res.write(part)) {
          res.once('drain', more);
          return;
        }
      }
      res.end();
    };
    more();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
};

type Download = { readonly headMs: number; readonly digest: string };
const download = (url: string): Promise<Download> =>
  new Promise((resolve, reject) => {
    const began = performance.now();
    const req = request(url, { agent: false }, (res) => {
      const headMs = performance.now() - began;
      const hash = createHash('sha256');
      res.on('data', (chunk: Buffer) => hash.update(chunk));
      res.on('end', () => resolve({ headMs, digest: hash.digest('hex') }));
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end();
  });

type Figures = { readonly requests: number; readonly compared: number; readonly incomparable: number; readonly match: number };
const reportOf = async (admin: string): Promise<Figures> => (await (await fetch(`${admin}/api/v1/contexts/one/parity`)).json()) as Figures;

/** Delay of each event from the upstream's write to the client, ms; and from the client's end to the upstream's. */
const streamFigures = async (url: string, streams: ServerResponse[], events: number): Promise<{ delays: number[]; endMs: number }> => {
  const delays: number[] = [];
  const client = request(url, { agent: false });
  client.end();
  const [res] = (await once(client, 'response')) as [IncomingMessage];
  const upstream = streams.at(-1)!;
  for (let i = 0; i < events; i++) {
    const came = once(res, 'data');
    const sent = performance.now();
    upstream.write(`data: ${i}\n\n`);
    await came;
    delays.push(performance.now() - sent);
    await pause(5);
  }
  const ended = once(upstream, 'close');
  const left = performance.now();
  res.on('error', () => undefined);
  client.destroy();
  await ended;
  return { delays, endMs: performance.now() - left };
};

export const benchParityLive = async ({ quick, say }: BenchOptions): Promise<Report> => {
  const [bytes, clients, events] = quick ? [BYTES / 10, 4, 20] : [BYTES, CLIENTS, EVENTS];
  const before = machine();
  const shop = openWorkshop();
  const streams: ServerResponse[] = [];
  let copied = 0;
  const legacy = await startSide(bytes, (res) => void streams.push(res));
  const extracted = await startSide(bytes, () => void copied++);
  try {
    const banyan = await startBanyan(shop, { name: 'gateway', legacy: legacy.url, contexts: shadowed(extracted.url) });
    const wanted = (await download(`${legacy.url}/api/a/b/file`)).digest;
    await download(`${banyan.url}/api/a/b/file`);
    say(`${clients} clients, ${round(bytes / 1_048_576, 0)} MiB each, directly and through a gateway that compares`);
    const many = (url: string): Promise<Download[]> => Promise.all(Array.from({ length: clients }, () => download(`${url}/api/a/b/file`)));
    const idle = rssMiB(banyan.pid);
    let most = idle;
    const timer = setInterval(() => {
      most = Math.max(most, rssMiB(banyan.pid));
    }, SAMPLE_MS);
    const through = await many(banyan.url);
    let report = await reportOf(banyan.admin);
    for (let looks = 0; report.compared + report.incomparable < clients + 1 && looks < 600; looks++) {
      await pause(100);
      report = await reportOf(banyan.admin);
    }
    clearInterval(timer);
    say('events');
    const { delays, endMs } = await streamFigures(`${banyan.url}/api/a/b/events`, streams, events);
    const direct2 = await streamFigures(`${legacy.url}/api/a/b/events`, streams, events);
    // one at a time and in turns: twenty at once measure how this process shares its one thread
    const heads: [number[], number[]] = [[], []];
    for (let i = 0; i < ROUNDS; i++)
      for (const [side, url] of [legacy.url, banyan.url].entries()) heads[side]!.push((await download(`${url}/api/a/b/file`)).headMs);
    const figures = {
      large_changed: through.filter(({ digest }) => digest !== wanted).length,
      large_compared: report.match,
      large_unaccounted: clients + 1 - report.compared - report.incomparable,
      large_head_added_ms: round(median(heads[1]) - median(heads[0]), 2),
      large_rss_growth_mb: round(most - idle, 1),
      event_delay_p50_ms: round(median(delays), 2),
      event_delay_max_ms: round(percentile(delays, 1), 2),
      event_added_p50_ms: round(median(delays) - median(direct2.delays), 2),
      event_end_ms: round(endMs, 2),
      events_mirrored: copied,
    };
    return { name: 'parity-live', machine: before, figures, table: [], missing: [], versions: {} };
  } finally {
    await shop.close();
    for (const { server } of [legacy, extracted]) {
      server.closeAllConnections();
      server.close();
    }
  }
};
