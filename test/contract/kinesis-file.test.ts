import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  AddTagsToStreamCommand,
  DeleteStreamCommand,
  DescribeStreamCommand,
  IncreaseStreamRetentionPeriodCommand,
  ListStreamsCommand,
  ListTagsForStreamCommand,
  PutRecordsCommand,
  SplitShardCommand,
} from '@aws-sdk/client-kinesis';
import { type KinesisOptions, startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  bytes,
  clientOf,
  create,
  endAll,
  entries,
  failure,
  fakeClock,
  folder,
  get,
  HOUR,
  iterator,
  MIB,
  onEnd,
  put,
  readAll,
  SHARD_1,
  start,
  textOf,
  texts,
} from '../harness/kinesis-client.ts';
import { repository } from '../harness/processes.ts';

afterEach(endAll);

describe('a data file', () => {
  const options = (path: string): KinesisOptions => ({ dataFile: join(path, 'kinesis.log'), limits: { throttle: false } });

  it('brings back streams, shards, tags and records with their sequence numbers', async () => {
    const path = folder();
    const first = await start(options(path));
    await create(first.client, 's', 2);
    await first.client.send(new AddTagsToStreamCommand({ StreamName: 's', Tags: { a: '1' } }));
    await first.client.send(new IncreaseStreamRetentionPeriodCommand({ StreamName: 's', RetentionPeriodHours: 48 }));
    await create(first.client, 'gone');
    await first.client.send(new DeleteStreamCommand({ StreamName: 'gone' }));
    const sent = await put(first.client, 's', 'one', 'a');
    const before = await first.client.send(new DescribeStreamCommand({ StreamName: 's' }));
    const open = await iterator(first.client, 's', {
      ShardIteratorType: 'AFTER_SEQUENCE_NUMBER',
      StartingSequenceNumber: sent.SequenceNumber!,
    });
    await first.client.send(
      new SplitShardCommand({ StreamName: 's', ShardToSplit: SHARD_1, NewStartingHashKey: '270141183460469231731687303715884105728' }),
    );
    await first.stop();

    const second = await start(options(path));
    const after = await second.client.send(new DescribeStreamCommand({ StreamName: 's' }));
    expect(after.StreamDescription!.Shards!.map((shard) => shard.ShardId)).toHaveLength(4);
    expect(after.StreamDescription!.Shards![0]).toEqual(before.StreamDescription!.Shards![0]);
    expect(after.StreamDescription).toMatchObject({ RetentionPeriodHours: 48, StreamARN: before.StreamDescription!.StreamARN });
    expect((await second.client.send(new ListTagsForStreamCommand({ StreamName: 's' }))).Tags).toEqual([{ Key: 'a', Value: '1' }]);
    expect((await second.client.send(new ListStreamsCommand({}))).StreamNames).toEqual(['s']);
    const records = (await get(second.client, await iterator(second.client, 's'))).Records!;
    expect(records.map((record) => [record.SequenceNumber, textOf(record.Data)])).toEqual([[sent.SequenceNumber, 'one']]);
    const next = await put(second.client, 's', 'two', 'a');
    expect(BigInt(next.SequenceNumber!) > BigInt(sent.SequenceNumber!)).toBe(true);
    expect(texts(await get(second.client, open))).toEqual(['two']);
  });

  it('never lets an old iterator or sequence number read a namesake stream', async () => {
    const { clock, advance } = fakeClock();
    const { client } = await start({ clock });
    await create(client, 's');
    const sent = await put(client, 's', 'old');
    const stale = await iterator(client, 's');
    await client.send(new DeleteStreamCommand({ StreamName: 's' }));
    advance(10);
    await create(client, 's');
    await put(client, 's', 'new');
    expect((await failure(get(client, stale))).name).toBe('ResourceNotFoundException');
    const from = { ShardIteratorType: 'AFTER_SEQUENCE_NUMBER', StartingSequenceNumber: sent.SequenceNumber! } as const;
    expect((await failure(iterator(client, 's', from))).name).toBe('InvalidArgumentException');
  });

  it('loses a torn tail and nothing else; damage in the middle is set aside', async () => {
    const path = folder();
    const file = options(path).dataFile!;
    const first = await start(options(path));
    await create(first.client, 's');
    await put(first.client, 's', 'one');
    const whole = statSync(file).size;
    await put(first.client, 's', 'two');
    await first.stop();
    const full = readFileSync(file);
    for (const cut of [whole + 1, whole + 8, whole + 9, full.length - 1]) {
      writeFileSync(file, full.subarray(0, cut));
      const warnings: string[] = [];
      const again = await start({ ...options(path), warn: (line) => warnings.push(line) });
      expect(await readAll(again.client, 's')).toEqual(['one']);
      await put(again.client, 's', 'three');
      await again.stop();
      expect(warnings).toEqual([expect.stringContaining('never acknowledged')]);
      const last = await start(options(path));
      expect(await readAll(last.client, 's')).toEqual(['one', 'three']);
      await last.stop();
    }
    const damaged = Buffer.from(full);
    damaged[whole - 3]! ^= 0xff;
    writeFileSync(file, damaged);
    const warnings: string[] = [];
    const again = await start({ ...options(path), warn: (line) => warnings.push(line) });
    expect(await readAll(again.client, 's')).toEqual([]);
    expect(warnings).toEqual([expect.stringContaining('is damaged at byte')]);
    expect(readFileSync(`${file}.damaged`).equals(damaged)).toBe(true);
  });

  it('is refused when it is not ours or in use', async () => {
    const path = folder();
    const file = options(path).dataFile!;
    appendFileSync(file, 'precious notes that nobody may truncate');
    await expect(startKinesis(options(path))).rejects.toThrow('is not a Kinesis emulator data file');
    expect(readFileSync(file, 'utf8')).toContain('precious');
    rmSync(file);
    await start(options(path));
    await expect(startKinesis(options(path))).rejects.toThrow('is in use by another Kinesis emulator');
    await expect(startKinesis({ dataFile: '/dev/null/x' })).rejects.toThrow('cannot open the data file');
  });

  it('shrinks while running and at start when it is mostly trimmed, and keeps what is retained', async () => {
    const path = folder();
    const { clock, advance } = fakeClock();
    const small: KinesisOptions = { ...options(path), clock, limits: { throttle: false, compactMinBytes: MIB } };
    const file = small.dataFile!;
    const first = await start({ ...small, limits: { throttle: false, compactMinBytes: 1024 * MIB } });
    await create(first.client, 's');
    const stays = await put(first.client, 's', 'x');
    await first.client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(9, 'k', 500 * 1024) }));
    advance(25 * HOUR);
    const kept = await put(first.client, 's', 'kept');
    await first.stop();
    const grown = statSync(file).size;
    expect(grown).toBeGreaterThan(4 * MIB);

    const second = await start(small);
    expect(statSync(file).size).toBeLessThan(10_000);
    expect(await readAll(second.client, 's')).toEqual(['kept']);
    for (let day = 0; day < 3; day++) {
      advance(25 * HOUR);
      await second.client.send(new PutRecordsCommand({ StreamName: 's', Records: entries(9, 'k', 100 * 1024) }));
    }
    const last = await put(second.client, 's', 'last');
    await second.stop();
    expect(statSync(file).size).toBeLessThan(2 * MIB);
    expect(
      BigInt(stays.SequenceNumber!) < BigInt(kept.SequenceNumber!) && BigInt(kept.SequenceNumber!) < BigInt(last.SequenceNumber!),
    ).toBe(true);
    const third = await start(small);
    expect(await readAll(third.client, 's')).toHaveLength(10);
  });
});

describe('the emulator as a process', () => {
  const MAIN = join(repository, 'dev/kinesis/main.ts');
  type Running = { child: ChildProcess; url: string };
  const spawn = (args: string[]): { child: ChildProcess; output: () => string } => {
    const child = fork(MAIN, args, { execPath: process.execPath, execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    let output = '';
    for (const stream of [child.stdout!, child.stderr!])
      stream.on('data', (chunk: Buffer) => {
        output += chunk;
      });
    onEnd(() => child.exitCode === null && child.signalCode === null && child.kill('SIGKILL'));
    return { child, output: () => output };
  };
  const run = async (args: string[]): Promise<Running> => {
    const { child, output } = spawn(args);
    const [message] = (await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(() => {
        throw new Error(`exited: ${output()}`);
      }),
    ])) as [{ type: string; urls: { kinesis: string } }];
    expect(message.type).toBe('ready');
    return { child, url: message.urls.kinesis };
  };

  it('loses no acknowledged record and no stream to kill -9 in the middle of writing', async () => {
    const args = ['--port', '0', '--no-throttle', '--data', join(folder(), 'k.log')];
    const acknowledged: string[] = [];
    let numbers: bigint[] = [];
    for (let round = 0; round < 3; round++) {
      const { child, url } = await run(args);
      const client = clientOf(url);
      if (round === 0) await create(client, 's');
      const before = acknowledged.length;
      const writer = async (lane: number): Promise<void> => {
        for (let i = 0; ; i++) {
          const names = Array.from({ length: 20 }, (_, j) => `${round}/${lane}/${i}/${j}`);
          const answer = await client.send(
            new PutRecordsCommand({
              StreamName: 's',
              Records: names.map((name) => ({ PartitionKey: name, Data: bytes(name.padEnd(300)) })),
            }),
          );
          acknowledged.push(...names);
          numbers.push(...answer.Records!.map((record) => BigInt(record.SequenceNumber!)));
          if (acknowledged.length - before >= 2000) child.kill('SIGKILL');
        }
      };
      // Every lane ends with a broken connection; the puts it had in flight are unknown, as for any client.
      const ends = await Promise.allSettled([0, 1, 2, 3].map(writer));
      expect(ends.every((end) => end.status === 'rejected')).toBe(true);
      if (child.signalCode === null) await once(child, 'exit');
    }
    const { child, url } = await run(args);
    const stored = (await readAll(clientOf(url), 's')).map((text) => text.trim());
    const known = new Set(stored);
    expect(acknowledged.filter((name) => !known.has(name))).toEqual([]);
    expect(known.size).toBe(stored.length);
    expect(new Set(numbers).size).toBe(numbers.length);
    numbers = [];
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
  });

  it('stops when the process that started it goes away, and says in one line why it cannot start', async () => {
    const { child, url } = await run(['--port', '0']);
    const busy = spawn(['--port', new URL(url).port]);
    expect(await once(busy.child, 'exit')).toEqual([2, null]);
    expect(busy.output()).toBe(`kinesis: 127.0.0.1:${new URL(url).port} is in use; stop what listens there or choose another --port\n`);
    const wrong = spawn(['--prot', '1']);
    expect(await once(wrong.child, 'exit')).toEqual([2, null]);
    expect(wrong.output().trim().split('\n')).toHaveLength(1);
    const range = spawn(['--port', '70000']);
    expect(await once(range.child, 'exit')).toEqual([2, null]);
    const help = spawn(['--help']);
    expect(await once(help.child, 'exit')).toEqual([0, null]);
    expect(help.output()).toContain('--shards-on-demand');
    child.disconnect();
    expect(await once(child, 'exit')).toEqual([0, null]);
  });
});
