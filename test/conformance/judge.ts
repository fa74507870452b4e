import { type RawMessage, statusOf } from '../harness/raw-http.ts';
import type { AnswerWanted, Case, FieldWanted, MessageWanted, RequestWanted, Wanted } from './case.ts';
import type { Seen } from './scripted-upstream.ts';

/** What a client read: an answer, or the end of the connection in its place. */
export type Heard = RawMessage | 'gone';

type Message = Pick<RawMessage, 'line' | 'fields' | 'body' | 'trailers' | 'complete'>;

const DEFAULT_ANSWERS: readonly AnswerWanted[] = [{ status: 200, body: 'ok' }];
const DEFAULT_SEEN: readonly RequestWanted[] = [{}];

/** Why this is not what was wanted; empty = it is. Pure. `lists` holds one list of requests for each upstream. */
export const judge = (one: Case, heard: readonly Heard[], lists: readonly (readonly Seen[])[], strict: boolean): string[] => {
  const alternatives: readonly Wanted[] = strict ? [one.want ?? {}] : [one.want ?? {}, ...(one.or ?? [])];
  let first: string[] | null = null;
  for (const wanted of alternatives) {
    const faults = [...judgeAnswers(wanted, heard), ...judgeRequests(wanted, lists)];
    if (faults.length === 0) return [];
    first ??= faults;
  }
  return first ?? [];
};

const judgeAnswers = (wanted: Wanted, heard: readonly Heard[]): string[] => {
  const answers = wanted.answers ?? DEFAULT_ANSWERS;
  const faults: string[] = [];
  for (const [i, answer] of answers.entries()) {
    const got = heard[i];
    const where = `answer ${i + 1}`;
    if (got === undefined) faults.push(`${where}: none`);
    else if (answer === 'gone') {
      if (got !== 'gone') faults.push(`${where}: ${got.line}, expected the connection to end`);
    } else if (got === 'gone') faults.push(`${where}: the connection ended, expected ${answer.status}`);
    else {
      const statuses = typeof answer.status === 'number' ? [answer.status] : answer.status;
      if (!statuses.includes(statusOf(got))) faults.push(`${where}: ${got.line}, expected ${statuses.join(' or ')}`);
      else faults.push(...judgeMessage(where, answer, got, framingOfAnswer(got)));
      if (answer.line !== undefined && !fits(answer.line, got.line)) faults.push(`${where}: ${got.line}, expected ${answer.line}`);
    }
  }
  for (const more of heard.slice(answers.length)) faults.push(`one answer too many: ${more === 'gone' ? 'the end' : more.line}`);
  return faults;
};

/**
 * Each upstream that was asked must have been asked like this (one that stands in for another sees the same), or all of them together,
 * in order, when they share the requests of one play.
 */
const judgeRequests = (wanted: Wanted, lists: readonly (readonly Seen[])[]): string[] => {
  const requests = wanted.seen ?? DEFAULT_SEEN;
  const together = lists.flat().sort((a, b) => a.order - b.order);
  if (requests === 'any' || (wanted.orUnseen && together.length === 0)) return [];
  const merged = judgeList(requests, together);
  if (merged.length === 0 || lists.length === 1 || together.length === 0) return merged;
  const each = lists.filter((list) => list.length > 0).flatMap((list) => judgeList(requests, list));
  return each.length === 0 ? [] : merged;
};

const judgeList = (wanted: readonly RequestWanted[], seen: readonly Seen[]): string[] => {
  if (wanted.length !== seen.length)
    return [`upstream saw ${seen.length} requests, expected ${wanted.length}: ${seen.map(({ line }) => line).join(' | ')}`];
  return wanted.flatMap((request, i) => {
    const got = seen[i]!;
    const faults = judgeMessage(`request ${i + 1} upstream`, request, got, got.framing);
    if (request.line !== undefined && !fits(request.line, got.line)) faults.unshift(`upstream saw ${got.line}, expected ${request.line}`);
    return faults;
  });
};

const fits = (wanted: string | RegExp, text: string): boolean => (typeof wanted === 'string' ? wanted === text : wanted.test(text));

const framingOfAnswer = (got: Message): string => {
  const has = (name: string): boolean => got.fields.some(([field]) => field.toLowerCase() === name);
  if (has('transfer-encoding')) return 'chunked';
  if (has('content-length')) return 'length';
  return got.body.length > 0 ? 'close' : 'none';
};

const judgeMessage = (where: string, wanted: MessageWanted, got: Message, framing: string): string[] => {
  const faults: string[] = [];
  const values = (name: string): string[] =>
    got.fields.filter(([field]) => field.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
  for (const [name, value] of Object.entries(wanted.has ?? {})) {
    const found = values(name);
    if (!holds(value, found)) faults.push(`${where}: ${name} is ${JSON.stringify(found)}, expected ${show(value)}`);
  }
  for (const name of wanted.lacks ?? []) {
    const found = values(name);
    if (found.length > 0) faults.push(`${where}: has ${name}: ${found.join(', ')}`);
  }
  if (wanted.order) {
    const names = got.fields.map(([name]) => name).filter((name) => wanted.order!.some((one) => one.toLowerCase() === name.toLowerCase()));
    if (names.join() !== wanted.order.join()) faults.push(`${where}: fields ${names.join(', ')}, expected ${wanted.order.join(', ')}`);
  }
  const body = got.body.toString('latin1');
  if (wanted.body !== undefined && !fits(wanted.body, body))
    faults.push(`${where}: body ${JSON.stringify(body.slice(0, 80))}, expected ${show(wanted.body)}`);
  if (wanted.bytes !== undefined && wanted.bytes !== body.length) faults.push(`${where}: ${body.length} bytes, expected ${wanted.bytes}`);
  if (wanted.framing !== undefined && wanted.framing !== framing) faults.push(`${where}: framed by ${framing}, expected ${wanted.framing}`);
  if (wanted.trailers !== undefined) {
    const flat = (pairs: readonly (readonly [string, string])[]): string =>
      pairs.map(([name, value]) => `${name.toLowerCase()}: ${value}`).join(', ');
    if (flat(wanted.trailers) !== flat(got.trailers))
      faults.push(`${where}: trailers "${flat(got.trailers)}", expected "${flat(wanted.trailers)}"`);
  }
  const complete = wanted.complete === undefined ? true : wanted.complete;
  if (complete !== null && got.complete !== complete)
    faults.push(`${where}: ${got.complete ? 'looks whole, though it is not' : 'is cut short'}`);
  return faults;
};

const holds = (wanted: FieldWanted, found: readonly string[]): boolean => {
  if (wanted instanceof RegExp) return found.length === 1 && wanted.test(found[0]!);
  if (typeof wanted === 'string') return found.length === 1 && found[0] === wanted;
  return found.length === wanted.length && wanted.every((value, i) => fits(value, found[i]!));
};

const show = (value: FieldWanted): string =>
  value instanceof RegExp ? String(value) : typeof value === 'string' ? JSON.stringify(value) : `[${value.map(show).join(', ')}]`;
