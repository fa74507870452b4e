import { textOf, validDraft } from './draft.ts';
import { mix, type Random, randomFrom } from './random.ts';
import { bend, mutate } from './tricks.ts';

/** What a client does with one connection: the bytes of each write. */
export type Script = {
  readonly writes: readonly string[];
  /** Sends FIN behind the last byte rather than when it has its answers. */
  readonly fin: boolean;
};

/** Cuts bytes into what is written at a time, at most 8 pieces (or one byte at a time, at most 64 of them). */
export const segments = (text: string, r: Random): string[] => {
  if (text === '') return [];
  if (r.chance(0.5)) return [text];
  const writes: string[] = [];
  const tiny = r.chance(0.1);
  let at = 0;
  for (let i = tiny ? 64 : r.below(8); i > 0 && at < text.length; i--) {
    // Around line ends, where readers keep state, more often than elsewhere.
    const line = text.indexOf('\n', at + r.below(40));
    const cut = tiny ? at + 1 : line !== -1 && r.chance(0.6) ? line + r.below(2) : at + 1 + r.below(text.length - at);
    if (cut <= at) continue;
    writes.push(text.slice(at, cut));
    at = cut;
  }
  if (at < text.length) writes.push(text.slice(at));
  return writes;
};

/** Case `index` of a run: 1 to `most` requests, some bent, then blindly mutated. A quarter stays untouched: sound requests have to pass. */
export const requestScript = (seed: number, index: number, most: number): Script => {
  const r = randomFrom(mix(seed, index));
  const count = 1 + r.below(most);
  const sound = r.chance(0.25);
  const bent = r.below(count);
  let text = '';
  for (let i = 0; i < count; i++) {
    const draft = validDraft(r, `${index.toString(36)}-${i}`);
    if (!sound && i === bent) for (let n = r.chance(0.85) ? 1 : 2; n > 0; n--) bend(draft, r);
    text += textOf(draft);
  }
  if (!sound && r.chance(0.4)) for (let n = 1 + r.below(3); n > 0; n--) text = mutate(text, r);
  // Latin-1 by construction, but for what a list above may hold
  text = Buffer.from(text, 'latin1').toString('latin1');
  return { writes: segments(text, r), fin: r.chance(0.05) };
};
