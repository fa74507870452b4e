import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseDocument } from 'yaml';
import { repository } from './processes.ts';

/** Changes to the demo's file: dotted path -> value. */
export type Changes = Readonly<Record<string, unknown>>;

/** Writes the demo shop's configuration to `file`, with `changes` made to it. */
export const writeDemoConfig = async (file: string, changes: Changes): Promise<void> => {
  const doc = parseDocument(readFileSync(join(repository, 'dev/stack/demo.yaml'), 'utf8'));
  for (const [path, value] of Object.entries(changes)) doc.setIn(path.split('.'), doc.createNode(value));
  await writeFile(file, doc.toString());
};
