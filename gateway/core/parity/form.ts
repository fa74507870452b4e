import { JsonObject } from './json.ts';

const BROKEN = /%(?![0-9a-fA-F]{2})/;

const decoded = (text: string): string => {
  const spaced = text.replaceAll('+', ' ');
  // Asked first because a thrown error costs a hundred times as much.
  if (!spaced.includes('%') || BROKEN.test(spaced)) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    // A broken escape is compared as it was sent.
    return spaced;
  }
};

/** `application/x-www-form-urlencoded` as an object of strings; a repeated name stays repeated. Never throws. */
export const parseForm = (text: string): JsonObject => {
  const keys: string[] = [];
  const values: string[] = [];
  for (const pair of text.split('&')) {
    if (pair === '') continue;
    const at = pair.indexOf('=');
    keys.push(decoded(at < 0 ? pair : pair.slice(0, at)));
    values.push(at < 0 ? '' : decoded(pair.slice(at + 1)));
  }
  return new JsonObject(keys, values);
};
