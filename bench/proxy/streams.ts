import { createHash, randomFillSync } from 'node:crypto';
import { Agent, request } from 'node:http';
import { rssMiB } from './usage.ts';

export type StreamsResult = {
  readonly growthMiB: number;
  readonly seconds: number;
  /** Clients whose bytes came back different or not at all. */
  readonly broken: number;
};

const PIECE = 64 * 1024;
const SAMPLE_MS = 25;

/** One client: sends `bytes` and reads what comes back at the same time. Resolves to whether both hash the same. */
const echo = (url: string, bytes: number, agent: Agent, chunked: boolean): Promise<boolean> =>
  new Promise((resolve) => {
    const up = createHash('sha256');
    const down = createHash('sha256');
    let left = bytes;
    let back = 0;
    const piece = randomFillSync(Buffer.alloc(PIECE));
    const headers = { 'content-type': 'application/octet-stream', ...(chunked ? {} : { 'content-length': bytes }) };
    const outgoing = request(`${url}/echo`, { method: 'POST', agent, headers }, (incoming) => {
      incoming.on('data', (chunk: Buffer) => {
        back += chunk.length;
        down.update(chunk);
      });
      incoming.on('end', () => resolve(incoming.statusCode === 200 && back === bytes && up.digest('hex') === down.digest('hex')));
      incoming.on('error', () => resolve(false));
    });
    outgoing.on('error', () => resolve(false));
    const send = (): void => {
      while (left > 0) {
        // every piece differs, so that a lost, doubled or swapped one shows
        piece.writeUInt32BE(left >>> 0, 0);
        const part = Buffer.from(piece.subarray(0, Math.min(PIECE, left)));
        left -= part.length;
        up.update(part);
        if (!outgoing.write(part)) {
          outgoing.once('drain', send);
          return;
        }
      }
      outgoing.end();
    };
    send();
  });

/** `clients` at once stream `bytes` up and down through the proxy `pid` at `url`; half of them in chunks. */
export const streams = async (options: { url: string; pid: number; clients: number; bytes: number }): Promise<StreamsResult> => {
  const agent = new Agent({ keepAlive: false });
  await echo(options.url, PIECE, agent, false);
  const before = rssMiB(options.pid);
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, rssMiB(options.pid));
  }, SAMPLE_MS);
  const began = performance.now();
  const all = await Promise.all(Array.from({ length: options.clients }, (_, i) => echo(options.url, options.bytes, agent, i % 2 === 1)));
  clearInterval(timer);
  most = Math.max(most, rssMiB(options.pid));
  agent.destroy();
  return { growthMiB: most - before, seconds: (performance.now() - began) / 1000, broken: all.filter((whole) => !whole).length };
};
