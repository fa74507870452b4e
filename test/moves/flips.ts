import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { openWorkshop } from '../../bench/processes.ts';
import { distinct, orderFaults, readFacts } from '../harness/facts.ts';
import { type MovingShop, openMovingShop } from './shop.ts';

export type FlipsOptions = {
  readonly flips: number;
  /** Until so many are done, at most so many are begun; absent = no more than `flips`. */
  readonly attempts?: number;
  readonly perSecond: number;
  readonly commandsPerSecond: number;
  readonly replicas: number;
  readonly workers: number;
  readonly say: (line: string) => void;
};

export type FlipsReport = {
  readonly flips: number;
  readonly undone: number;
  /** How long commands were held, ms. */
  readonly medianHeldMs: number;
  readonly longestHeldMs: number;
  readonly queries: number;
  readonly queriesLost: number;
  readonly queriesDoubled: number;
  /** Connections that broke, of queries and commands. */
  readonly resets: number;
  readonly commands: number;
  /** Acknowledged, and not, or not once, or not alike in the tables of the monolith and in the service. */
  readonly commandsLost: number;
  readonly commandsDoubled: number;
  /** Commands that both sides said they had done. */
  readonly doneByBoth: number;
  readonly refused: number;
  /** 503s that do not say when to come again. */
  readonly refusedWithoutRetryAfter: number;
  /** 503s while nothing was frozen, and no kill under way. */
  readonly refusedOutsideFreeze: number;
  /** After the kill at cutover, from its call, ms: the last query begun that the extracted side answered; the first command that legacy took. */
  readonly killQueriesMs: number;
  readonly killCommandsMs: number;
  /** First few of what went wrong. */
  readonly faults: readonly string[];
};

type Answer = { readonly status: number; readonly body: string; readonly side: string; readonly retryAfter: string | null };
type Refusal = { readonly begun: number; readonly ended: number; readonly retryAfter: string | null; readonly what: string };
type Seen = { readonly asked: [string, number][]; readonly copied: [string, number][]; readonly commands: [string, number[]][] };

const MOST_FAULTS = 20;
/** A replica may learn of a freeze a moment later than we do, and of its end up to a second later. */
const EARLY_MS = 250;
const LATE_MS = 1_250;
const GIVE_UP_MS = 60_000;
const WAY = [{ stage: 'cutover' }, { stage: 'canary', percent: 50 }] as const;
const CANCELS = 5;

const ask = (agent: Agent, method: string, url: string, headers: Record<string, string>, body?: string): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const outgoing = request(
      url,
      { agent, method, headers: { ...headers, ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }) } },
      (incoming) => {
        let text = '';
        incoming.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        incoming.on('error', reject);
        incoming.on('end', () => {
          const route = String(incoming.headers['banyan-route'] ?? '');
          resolve({
            status: incoming.statusCode ?? 0,
            body: text,
            side: /upstream=(\w+)/.exec(route)?.[1] ?? '',
            retryAfter: incoming.headers['retry-after'] ?? null,
          });
        });
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });

const change = async <T>(url: string, method: string, body?: object): Promise<T> => {
  const response = await fetch(url, {
    method,
    ...(body ? { headers: { 'content-type': 'application/json' }, body: JSON.stringify({ reason: 'flips under load', ...body }) } : {}),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text.slice(0, 300)}`);
  return JSON.parse(text) as T;
};

/** When commands of the context were held, as the store says it. */
const watchFreezes = async (store: string): Promise<{ spans: { from: number; to: number }[]; stop(): Promise<void> }> => {
  const spans: { from: number; to: number }[] = [];
  const client = new pg.Client({ connectionString: store });
  client.on('error', () => undefined); // when a failed run ends its server
  await client.connect();
  let looking = Promise.resolve();
  const look = async (): Promise<void> => {
    const { rows } = await client.query<{ frozen: boolean }>(
      "select frozen_by is not null as frozen from banyan.context where name = 'order'",
    );
    const open = spans.at(-1)?.to === Number.POSITIVE_INFINITY;
    if (rows[0]?.frozen && !open) spans.push({ from: performance.now(), to: Number.POSITIVE_INFINITY });
    if (!rows[0]?.frozen && open) spans.push({ ...spans.pop()!, to: performance.now() });
  };
  client.on('notification', () => {
    looking = looking.then(look);
  });
  await client.query('listen banyan_flags');
  return {
    spans,
    async stop() {
      await looking;
      await client.end();
    },
  };
};

/** What of the acknowledged commands is not, or not once, in both stores and on the stream. */
const audit = async (
  system: MovingShop,
  placed: ReadonlyMap<string, number>,
  cancelled: ReadonlySet<number>,
  blame: (what: string) => void,
) => {
  let lost = 0;
  let doubled = 0;
  const miss = (what: string): void => {
    lost++;
    blame(what);
  };
  const client = new pg.Client({ connectionString: system.shop });
  await client.connect();
  const { rows } = await client.query<{ id: string; key: string; status: string }>(
    'select ord_no as id, idem_key as key, stat_cd as status from shop.t_order where idem_key is not null',
  );
  await client.end();
  const byKey = Map.groupBy(rows, ({ key }) => key);
  for (const [key, id] of placed) {
    const found = byKey.get(key) ?? [];
    if (found.length > 1) {
      doubled++;
      blame(`${key}: orders ${found.map((row) => row.id).join(', ')}`);
    } else if (Number(found[0]?.id) !== id) miss(`${key}: acknowledged as ${id}, in the tables it is ${found[0]?.id ?? 'nothing'}`);
    else if (cancelled.has(id) && found[0]!.status !== 'X')
      miss(`${id}: its cancellation was acknowledged, in the tables it is ${found[0]!.status}`);
  }
  const facts = distinct(await readFacts(system.kinesis)).filter((fact) => fact.source.startsWith('/banyan/order/'));
  for (const fault of orderFaults(facts)) miss(`order of facts: ${fault}`);
  const placings = Map.groupBy(
    facts.filter((fact) => fact.type === 'order.placed.v1'),
    (fact) => fact.subject,
  );
  const cancellings = Map.groupBy(
    facts.filter((fact) => fact.type === 'order.cancelled.v1'),
    (fact) => fact.subject,
  );
  for (const id of placed.values())
    if (placings.get(String(id))?.length !== 1) miss(`${id}: ${placings.get(String(id))?.length ?? 0} facts of its placing`);
  for (const id of cancelled)
    if (cancellings.get(String(id))?.length !== 1) miss(`${id}: ${cancellings.get(String(id))?.length ?? 0} facts of its cancelling`);
  return { lost, doubled };
};

/** Resolves when both sides hold the same and every command is settled. @throws Error when that does not come to pass */
const settled = async (system: MovingShop): Promise<void> => {
  const client = new pg.Client({ connectionString: system.store });
  await client.connect();
  try {
    const until = performance.now() + 120_000;
    for (;;) {
      const { rows } = await client.query<{ what: string; n: number }>(
        `select upstream || ' ' || state as what, count(*)::int as n from banyan.ledger where state not in ('done', 'rejected', 'expired') group by 1
         union all select 'back-sync', count(*)::int from banyan.back_sync having count(*) > 0`,
      );
      const [legacy, extracted] = await Promise.all([
        change<object>(`${system.adapter}/v1/contexts/order/checksum`, 'GET'),
        change<object>(`${system.order}/_banyan/checksum`, 'GET'),
      ]);
      const same = JSON.stringify(legacy) === JSON.stringify(extracted);
      if (rows.length === 0 && same) return;
      if (performance.now() > until)
        throw new Error(
          `not settled: ${rows.map(({ what, n }) => `${n} ${what}`).join(', ')}; legacy ${JSON.stringify(legacy)}, extracted ${JSON.stringify(extracted)}`,
        );
      await pause(200);
    }
  } finally {
    await client.end();
  }
};

/** Hands the writes of the demo shop to and fro under load, then kills at cutover, and accounts for every query and command. */
export const flipUnderLoad = async (options: FlipsOptions): Promise<FlipsReport> => {
  const workshop = openWorkshop();
  const faults: string[] = [];
  const blame = (what: string): void => {
    if (faults.length < MOST_FAULTS) faults.push(what);
  };
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  try {
    const system = await openMovingShop(workshop, options.replicas, options.workers);
    options.say('the system runs');
    const { replicas } = system;
    const adminOf = (n: number): string => `${replicas[n % replicas.length]!.admin}/api/v1`;
    const gatewayOf = (n: number): string => replicas[n % replicas.length]!.gateway;
    const freezes = await watchFreezes(system.store);
    for (const stage of [{ stage: 'shadow' }, { stage: 'canary', percent: 50 }])
      await change(`${adminOf(0)}/contexts/order/stage`, 'PUT', stage);

    let running = true;
    let queries = 0;
    let queriesLost = 0;
    let resets = 0;
    const answered: { begun: number; side: string }[] = [];
    const query = async (n: number): Promise<void> => {
      const begun = performance.now();
      try {
        const { status, body, side } = await ask(agent, 'GET', `${gatewayOf(n)}/item/q${n}`, { 'x-user-id': `user-${n % 1_000}` });
        if (status === 200 && body === JSON.stringify({ id: `q${n}` })) answered.push({ begun, side });
        else {
          queriesLost++;
          blame(`query ${n}: ${status} ${body.slice(0, 200)}`);
        }
      } catch (error) {
        resets++;
        blame(`query ${n}: ${(error as Error).message}`);
      }
    };
    const placed = new Map<string, number>();
    const cancelled = new Set<number>();
    const refusals: Refusal[] = [];
    const taken: { at: number; side: string }[] = [];
    /** What a careful client does: the same key until there is an answer. */
    const surely = async (n: number, path: string, key: string, body: object): Promise<Answer | null> => {
      const giveUp = performance.now() + GIVE_UP_MS;
      for (let attempt = 0; performance.now() < giveUp; attempt++) {
        const begun = performance.now();
        const headers = { 'content-type': 'application/json', 'idempotency-key': key, 'x-user-id': `buyer-${n % 50}` };
        let answer: Answer;
        try {
          answer = await ask(agent, 'POST', `${gatewayOf(n + attempt)}${path}`, headers, JSON.stringify(body));
        } catch (error) {
          resets++;
          blame(`command ${key}: ${(error as Error).message}`);
          continue;
        }
        const ended = performance.now();
        if (answer.status === 200 || answer.status === 201) {
          taken.push({ at: ended, side: answer.side });
          return answer;
        }
        if (answer.status === 503) refusals.push({ begun, ended, retryAfter: answer.retryAfter, what: answer.body.slice(0, 200) });
        else if (answer.status !== 202) {
          blame(`command ${key}: ${answer.status} ${answer.body.slice(0, 200)}`);
          return null;
        }
        await pause(Number(answer.retryAfter ?? 1) * 1_000);
      }
      blame(`command ${key}: nobody took it in ${GIVE_UP_MS} ms`);
      return null;
    };
    let unanswered = 0;
    const command = async (n: number): Promise<void> => {
      const key = randomUUID();
      const answer = await surely(n, '/api/orders', key, { userId: `buyer-${n % 50}`, items: [{ productId: (n % 8) + 1, quantity: 1 }] });
      if (answer === null) {
        unanswered++;
        return;
      }
      const { id } = JSON.parse(answer.body) as { id: number };
      placed.set(key, id);
      if (n % CANCELS !== 0) return;
      if ((await surely(n, `/api/orders/${id}/cancel`, randomUUID(), {})) === null) unanswered++;
      else cancelled.add(id);
    };
    const began = performance.now();
    /** An open loop: what is due is begun, however long the others take. */
    const load = async (perSecond: number, work: (n: number) => Promise<void>): Promise<number> => {
      const pending = new Set<Promise<void>>();
      let count = 0;
      for (; running; await pause(2)) {
        const due = Math.floor(((performance.now() - began) / 1_000) * perSecond);
        for (; count < due; count++) {
          const one = work(count);
          pending.add(one);
          void one.finally(() => pending.delete(one));
        }
      }
      await Promise.all(pending);
      return count;
    };

    const held: number[] = [];
    let done = 0;
    let undone = 0;
    const flip = async (n: number, to: object): Promise<boolean> => {
      const { flip: started } = await change<{ flip: { id: string } }>(`${adminOf(n)}/contexts/order/stage`, 'PUT', to);
      for (;;) {
        const now = await change<{ state: string; detail: string | null }>(`${adminOf(n + 1)}/flips/${started.id}`, 'GET');
        if (now.state === 'done') {
          held.push(Number(/held for (\d+) ms/.exec(now.detail ?? '')?.[1] ?? Number.NaN));
          return true;
        }
        if (now.state === 'undone') {
          blame(`flip ${n}: undone: ${now.detail}`);
          options.say(`flip ${n} was undone: ${now.detail}`);
          return false;
        }
        await pause(25);
      }
    };
    let killedAt = 0;
    let killCommandsMs = Number.POSITIVE_INFINITY;
    const flips = async (): Promise<void> => {
      try {
        await pause(1_000);
        for (let n = 0; done < options.flips && n < (options.attempts ?? options.flips); n++) {
          const { stage } = await change<{ stage: string }>(`${adminOf(n)}/contexts/order`, 'GET');
          if (await flip(n, WAY[stage === 'cutover' ? 1 : 0])) done++;
          else undone++;
          options.say(`${n + 1} flips, ${placed.size} orders placed, ${refusals.length} refusals, held for ${held.at(-1)} ms`);
          await pause(300);
        }
        const { stage } = await change<{ stage: string }>(`${adminOf(0)}/contexts/order`, 'GET');
        if (stage !== 'cutover' && !(await flip(0, WAY[0]))) return;
        await pause(500);
        killedAt = performance.now();
        await change(`${adminOf(1)}/contexts/order/kill`, 'POST', {});
        const first = () => taken.find(({ at, side }) => at > killedAt && side === 'legacy');
        for (const giveUp = performance.now() + GIVE_UP_MS; first() === undefined && performance.now() < giveUp; ) await pause(25);
        killCommandsMs = (first()?.at ?? Number.POSITIVE_INFINITY) - killedAt;
        await pause(1_500);
      } finally {
        running = false;
      }
    };
    const [count, commands] = await Promise.all([
      load(options.perSecond, async (n) => {
        queries++;
        await query(n);
      }),
      load(options.commandsPerSecond, command),
      flips(),
    ]);
    await settled(system);
    await freezes.stop();

    const seen = async (side: 'legacy' | 'extracted'): Promise<Seen> => change<Seen>(`${system.fronts[side]}/seen`, 'GET');
    const [legacy, extracted] = [await seen('legacy'), await seen('extracted')];
    const asked = new Map<string, number>();
    for (const [id, times] of [...legacy.asked, ...extracted.asked]) asked.set(id, (asked.get(id) ?? 0) + times);
    const success = (statuses: readonly number[] | undefined): boolean => statuses?.some((status) => status < 400) === true;
    const there = new Map(extracted.commands);
    const both = legacy.commands.filter(([key, statuses]) => success(statuses) && success(there.get(key)));
    for (const [key] of both) blame(`command ${key}: done by both sides`);
    const { lost, doubled } = await audit(system, placed, cancelled, blame);
    // from a kill at cutover until legacy has the writes commands are refused too
    const spans = [...freezes.spans, ...(killedAt > 0 ? [{ from: killedAt, to: killedAt + killCommandsMs }] : [])];
    const mute = refusals.filter(({ retryAfter }) => retryAfter === null);
    const outside = refusals.filter(({ begun, ended }) => !spans.some(({ from, to }) => ended >= from - EARLY_MS && begun <= to + LATE_MS));
    for (const { what } of mute) blame(`refused without Retry-After: ${what}`);
    for (const { what } of outside) blame(`refused while nothing was frozen: ${what}`);
    const late = answered.filter(({ begun, side }) => killedAt > 0 && begun > killedAt && side === 'extracted');
    held.sort((a, b) => a - b);
    return {
      flips: done,
      undone,
      medianHeldMs: held[Math.floor(held.length / 2)] ?? 0,
      longestHeldMs: held.at(-1) ?? 0,
      queries: count,
      queriesLost: queriesLost + [...Array(queries).keys()].filter((n) => !asked.has(`q${n}`)).length,
      queriesDoubled: [...asked.values()].filter((times) => times > 1).length,
      resets,
      commands: commands + cancelled.size,
      commandsLost: lost + unanswered,
      commandsDoubled: doubled,
      doneByBoth: both.length,
      refused: refusals.length,
      refusedWithoutRetryAfter: mute.length,
      refusedOutsideFreeze: outside.length,
      killQueriesMs: Math.round(late.reduce((most, { begun }) => Math.max(most, begun - killedAt), 0)),
      killCommandsMs: Math.round(killCommandsMs),
      faults,
    };
  } finally {
    agent.destroy();
    await workshop.close();
  }
};
