import { readFileSync, statSync } from 'node:fs';

/** PEM text, as opposed to the path of a file that holds it. */
const isPem = (text: string): boolean => text.includes('-----BEGIN ');

const MAX_FILE_BYTES = 1_048_576;

/** The PEM text that is meant: the text itself, or the file's. @throws the system's error, or one that says what the file is instead */
export const readPem = (textOrPath: string): string => {
  if (isPem(textOrPath)) return textOrPath;
  // A device or an endless pipe would otherwise be read until memory ends.
  if (statSync(textOrPath).size > MAX_FILE_BYTES) throw new Error('larger than 1 MiB');
  const text = readFileSync(textOrPath, 'utf8');
  if (!isPem(text)) throw new Error('no PEM file');
  return text;
};

/** Changes when one of the files does; texts never change. A file that is not there is a state like any other. */
export const stampOf = (textsOrPaths: readonly (string | null)[]): string =>
  textsOrPaths
    .map((one) => {
      if (one === null || isPem(one)) return '';
      const stat = statSync(one, { throwIfNoEntry: false });
      return stat === undefined ? 'absent' : `${stat.ino}.${stat.mtimeMs}.${stat.size}`;
    })
    .join('/');
