import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Workshop } from '../processes.ts';

export type LoadResult = {
  readonly requests: number;
  readonly errors: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
};

export type LoadOptions = { readonly url: string; readonly seconds: number; readonly connections: number };
/** As many requests as come back: every connection sends its next one when it has its answer. */
export type Loader = { readonly name: string; load(options: LoadOptions): Promise<LoadResult> };

/** wrk formats every request beforehand, so that it costs little itself, and prints one JSON line. */
const LUA = `
local requests = {}
local next = 0
init = function(args)
  for path in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", path) end
end
request = function()
  next = next + 1
  if next > #requests then next = 1 end
  return requests[next]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests":%d,"errors":%d,"seconds":%.6f,"p50Ms":%.3f,"p99Ms":%.3f}\\n', summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
`;

const wrk = (shop: Workshop, program: string, pathsFile: string): Loader => {
  const script = join(shop.folder, 'load.lua');
  writeFileSync(script, LUA);
  return {
    name: 'wrk',
    async load({ url, seconds, connections }) {
      const output = await shop.run(
        program,
        ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', '-s', script, url, '--', pathsFile],
        { timeoutMs: (seconds + 20) * 1000 },
      );
      return JSON.parse(/^RESULT (.*)$/m.exec(output)![1]!) as LoadResult;
    },
  };
};

/** Where there is no wrk: the same by a client of our own, which is slower but leaves processor time per request comparable. */
const own = (shop: Workshop, pathsFile: string): Loader => ({
  name: 'node',
  async load({ url, seconds, connections }) {
    const output = await shop.run(
      process.execPath,
      [join(import.meta.dirname, 'client.ts'), url, pathsFile, '--seconds', String(seconds), '--connections', String(connections)],
      { timeoutMs: (seconds + 20) * 1000 },
    );
    return JSON.parse(output) as LoadResult;
  },
});

export const createLoader = (shop: Workshop, program: string | null, paths: readonly string[]): Loader => {
  const file = join(shop.folder, 'paths');
  writeFileSync(file, `${paths.join('\n')}\n`);
  return program === null ? own(shop, file) : wrk(shop, program, file);
};

/**
 * Requests at a fixed rate whatever becomes of them (an open loop): a stall delays every request due meanwhile, and each latency counts from
 * the moment its request was due.
 */
export const steady = async (
  shop: Workshop,
  options: { readonly url: string; readonly seconds: number; readonly perSecond: number },
): Promise<LoadResult> => {
  const output = await shop.run(
    process.execPath,
    [
      join(import.meta.dirname, 'client.ts'),
      options.url,
      join(shop.folder, 'paths'),
      '--seconds',
      String(options.seconds),
      '--rate',
      String(options.perSecond),
    ],
    { timeoutMs: (options.seconds + 30) * 1000 },
  );
  return JSON.parse(output) as LoadResult;
};
