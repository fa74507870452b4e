import { type Holder, KEY } from './global-setup.ts';

/** Once per jest run, after the last test: stops PostgreSQL, if any test needed it, and so removes its data. */
export default async (): Promise<void> => {
  await (globalThis as Holder)[KEY]?.stop();
};
