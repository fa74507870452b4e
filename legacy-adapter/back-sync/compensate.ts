import { AppError } from '@banyan/contracts/errors.ts';
import { loadAggregates } from '../legacy-rows.ts';
import { tablesOf } from '../ports.ts';
import { type ApplyDeps, STATEMENT_TIMEOUT_MS, write } from './apply.ts';

/** Keys are remembered so long: far longer than a gateway goes on asking. */
const REMEMBERED = '90 days';

/**
 * Takes back what a command did to one aggregate, once for a key: the writes and the key are one transaction. Capture sees it as it sees any change that
 * somebody makes in legacy, so whoever heard of the aggregate hears of this too. `repeated` = this key has done it before.
 * @throws AppError `not-found` (no such context), `unprocessable` (cannot be taken back), `conflict`; then nothing has changed
 */
export const compensate = (
  { legacy, translation, aggregates, shapes }: ApplyDeps,
  context: string,
  subject: string,
  key: string,
): Promise<'done' | 'repeated'> =>
  legacy.transaction(async (trx) => {
    const aggregate = aggregates.find((candidate) => candidate.context === context);
    if (!aggregate) throw new AppError('not-found', `the legacy system has no context ${context}`);
    await trx.raw(`set local statement_timeout = ${STATEMENT_TIMEOUT_MS}`);
    await trx.raw(`delete from banyan_capture.compensation where at < clock_timestamp() - ?::interval`, [REMEMBERED]);
    const { rowCount } = await trx.raw<{ rowCount: number }>(
      'insert into banyan_capture.compensation (key, context, subject) values (?, ?, ?) on conflict do nothing',
      [key, context, subject],
    );
    if (rowCount === 0) return 'repeated';
    const current = (await loadAggregates(trx, shapes, aggregate, [subject], true)).get(subject)!;
    const tables = translation.aggregates.flatMap(tablesOf);
    for (const change of translation.undo(context, current, new Date().toISOString())) await write(trx, tables, change);
    return 'done';
  });
