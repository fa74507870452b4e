/** What a new service is made of: files by their path from the repository's root. Pure. @param name `^[a-z][a-z0-9-]*$` */
export const filesOf = (name: string, port: number): Readonly<Record<string, string>> => {
  const schema = `svc_${name.replaceAll('-', '_')}`;
  const camel = name.replaceAll(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  const pascal = camel.replace(/^./, (letter) => letter.toUpperCase());
  const at = `extracted-services/${name}`;
  const file = (text: string): string => text.replace(/^\n/, '');
  return {
    [`${at}/package.json`]: `${JSON.stringify(
      {
        name: `@banyan/service-${name}`,
        version: '0.1.0',
        private: true,
        license: 'Apache-2.0',
        type: 'module',
        exports: { './*': './*' },
        dependencies: { '@banyan/contracts': '0.1.0', '@banyan/kit': '0.1.0', express: '5.3.0', knex: '3.3.0', zod: '4.6.7' },
      },
      null,
      2,
    )}\n`,

    [`${at}/domain.ts`]: file(`
import type { Envelope } from '@banyan/contracts/envelope.ts';
import { z } from 'zod';

/** Facts about a ${name}: its whole state, or that it is gone. */
export const FACTS = ['${name}.imported.v1', '${name}.changed.v1', '${name}.deleted.v1'] as const;

const id = z.union([z.number().int(), z.string().min(1).max(128)]).transform(String);
/** What a fact carries. Name the fields that this service needs here; the others are kept as they are. */
const stateSchema = z.looseObject({ id });

export type ${pascal} = { readonly id: string; readonly state: Readonly<Record<string, unknown>> };
/** What several facts come to: the last one about a ${name} stands. */
export type Changes = { readonly put: readonly ${pascal}[]; readonly deleted: readonly string[] };

/** As if the facts had been applied one after the other. @throws ZodError for one that cannot be applied */
export const fold = (facts: readonly Pick<Envelope, 'type' | 'data'>[]): Changes => {
  const last = new Map<string, ${pascal} | null>();
  for (const { type, data } of facts) {
    const read = stateSchema.parse(data);
    last.set(read.id, type === '${name}.deleted.v1' ? null : { id: read.id, state: data });
  }
  return {
    put: [...last.values()].filter((item) => item !== null),
    deleted: [...last].filter(([, item]) => item === null).map(([gone]) => gone),
  };
};

/** What the API shows. */
export const view = (item: ${pascal}): Readonly<Record<string, unknown>> => item.state;
`),

    [`${at}/domain.test.ts`]: file(`
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { fold, view } from './domain.ts';

const changed = (id: number | string, name: string) => ({ type: '${name}.changed.v1', data: { id, name } });
const deleted = (id: number | string) => ({ type: '${name}.deleted.v1', data: { id } });

describe('facts folded a page at a time', () => {
  it('leave the last state of each', () => {
    const { put, deleted: gone } = fold([changed(1, 'a'), changed('2', 'b'), changed(1, 'c'), deleted(2), deleted(3), changed(3, 'd')]);
    expect([put.map(view), gone]).toEqual([
      [
        { id: 1, name: 'c' },
        { id: 3, name: 'd' },
      ],
      ['2'],
    ]);
    expect(() => fold([{ type: '${name}.changed.v1', data: {} }])).toThrow('id');
  });

  it('come to the same in pages of any size', () => {
    const one = fc.oneof(fc.tuple(fc.nat(3), fc.string()).map(([id, name]) => changed(id, name)), fc.nat(3).map(deleted));
    fc.assert(
      fc.property(fc.array(one, { maxLength: 20 }), fc.integer({ min: 1, max: 5 }), (facts, size) => {
        const run = (page: number) => {
          const items = new Map<string, object>();
          for (let at = 0; at < facts.length; at += page) {
            const { put, deleted: gone } = fold(facts.slice(at, at + page));
            for (const id of gone) items.delete(id);
            for (const item of put) items.set(item.id, item);
          }
          return new Map([...items].sort());
        };
        expect(run(size)).toEqual(run(1));
      }),
    );
  });
});
`),

    [`${at}/store.ts`]: file(`
import type { Migration } from '@banyan/kit/schema.ts';
import type { Knex } from 'knex';
import type { Changes, ${pascal} } from './domain.ts';

export const SCHEMA = '${schema}';

export const migrations: readonly Migration[] = [
  {
    name: '010-item',
    up: async (trx) => {
      await trx.raw(\`
create table ${schema}.item (
  id    text primary key,
  state json not null
)\`);
    },
  },
];

/** In a few statements, however many there are. */
export const save = async (trx: Knex, { put, deleted }: Changes): Promise<void> => {
  if (deleted.length > 0) await trx('${schema}.item').whereIn('id', deleted).delete();
  if (put.length > 0)
    await trx.raw(
      \`insert into ${schema}.item (id, state) select * from unnest(?::text[], ?::json[]) as w (id) order by w.id
       on conflict (id) do update set state = excluded.state\`,
      [put.map(({ id }) => id), put.map(({ state }) => JSON.stringify(state))],
    );
};

/** By id, at most \`limit\`, from the one after \`after\`. */
export const list = (db: Knex, limit: number, after = ''): Promise<${pascal}[]> =>
  db<${pascal}>('${schema}.item').where('id', '>', after).orderBy('id').limit(limit);

export const find = async (db: Knex, id: string): Promise<${pascal} | null> =>
  (await db<${pascal}>('${schema}.item').where({ id }).first()) ?? null;

/** Every one by id, in chunks of 1,000. */
export async function* all(db: Knex): AsyncGenerator<${pascal}[]> {
  for (let after = ''; ; ) {
    const chunk = await list(db, 1000, after);
    if (chunk.length === 0) return;
    yield chunk;
    after = chunk.at(-1)!.id;
  }
}
`),

    [`${at}/api.ts`]: file(`
import { AppError } from '@banyan/contracts/errors.ts';
import express, { type Router } from 'express';
import type { Knex } from 'knex';
import { view } from './domain.ts';
import { find, list } from './store.ts';

/** At most so many in one answer. */
const LIST = 1000;

/** The context's routes. Make them byte for byte what the monolith answers: shadowing shows where they are not. */
export const ${camel}Routes = ({ db }: { readonly db: Knex }): Router => {
  const router = express.Router();
  router.get('/api/${name}', async (_req, res) => {
    res.set('cache-control', 'no-cache').json((await list(db, LIST)).map(view));
  });
  router.get('/api/${name}/:id', async (req, res) => {
    const item = req.params.id.includes('\\0') ? null : await find(db, req.params.id);
    if (!item) throw new AppError('not-found', 'there is no such ${name}');
    res.set('cache-control', 'no-cache').json(view(item));
  });
  return router;
};
`),

    [`${at}/consumer.ts`]: file(`
import { type Handler, project } from '@banyan/kit/handlers.ts';
import { FACTS, fold } from './domain.ts';
import { save } from './store.ts';

/** The read side. What is more than keeping a copy (a mail, a payment) is a \`react\` handler beside it. */
export const handlers: readonly Handler[] = [project({ types: FACTS, applyAll: (trx, facts) => save(trx, fold(facts)) })];
`),

    [`${at}/compose.ts`]: file(`
import type { ServiceSpec } from '@banyan/kit/service.ts';
import { ${camel}Routes } from './api.ts';
import { handlers } from './consumer.ts';
import { view } from './domain.ts';
import { all, migrations, SCHEMA } from './store.ts';

/** The ${name} service: queries from its own store, which follows the facts of its context. */
export const ${camel}Service: ServiceSpec = {
  name: '${name}',
  defaultPort: ${port},
  schema: SCHEMA,
  migrations,
  compose: ({ db }) => ({
    routes: ${camel}Routes({ db }),
    handlers,
    states: async function* (trx) {
      for await (const chunk of all(trx)) yield chunk.map(view);
    },
  }),
};
`),

    [`${at}/main.ts`]: file(`
import { runService } from '@banyan/kit/run-service.ts';
import { ${camel}Service } from './compose.ts';

await runService(${camel}Service);
`),

    [`test/contract/service-${name}.test.ts`]: file(`
import { type Service, startService } from '@banyan/kit/service.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { ${camel}Service } from '../../extracted-services/${name}/compose.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { configFor, fact, publish, silent, startStream } from './kit-fixtures.ts';

let database: FreshDatabase;
let stream: Awaited<ReturnType<typeof startStream>>;
let service: Service;

beforeAll(async () => {
  [database, stream] = await Promise.all([freshDatabase('empty'), startStream()]);
  service = await startService(${camel}Service, configFor(database.url, stream), { log: silent });
}, 60_000);
afterAll(async () => {
  await service?.stop();
  await stream?.stop();
  await database?.drop();
});

const get = async (path: string): Promise<{ status: number; body: unknown }> => {
  const answer = await fetch(\`\${service.url}\${path}\`);
  return { status: answer.status, body: await answer.json() };
};
const told = (type: string, id: number, data: object, sequence: number) => fact(\`${name}.\${type}.v1\`, String(id), { id, ...data }, { sequence });

it('answers what the facts have told, each once', async () => {
  const first = told('imported', 1, { name: 'one' }, 1);
  await publish(stream, [first, told('changed', 2, { name: 'two' }, 1), told('changed', 1, { name: 'first' }, 2), first, told('changed', 3, {}, 1)]);
  await until(async () => ((await get('/api/${name}')).body as unknown[]).length === 3, { describe: 'all of them' });
  expect(await get('/api/${name}/1')).toEqual({ status: 200, body: { id: 1, name: 'first' } });
  await publish(stream, [told('deleted', 3, {}, 2)]);
  await until(async () => (await get('/api/${name}/3')).status === 404, { describe: 'the third to be gone' });
  expect((await get('/api/${name}')).body).toEqual([
    { id: 1, name: 'first' },
    { id: 2, name: 'two' },
  ]);
});

it('quarantines a fact that it cannot apply, and goes on with the others', async () => {
  await publish(stream, [fact('${name}.changed.v1', 'bad', { name: 'no id' }), told('changed', 4, {}, 1)]);
  await until(async () => (await service.consumer.position()).quarantined === 1, { describe: 'the dead letter' });
  await until(async () => (await get('/api/${name}/4')).status === 200, { describe: 'the one after it' });
});

it('can be compared with legacy', async () => {
  expect(await get('/_banyan/checksum')).toMatchObject({ status: 200, body: { count: 3 } });
  expect((await get('/readyz')).status).toBe(200);
});
`),
  };
};
