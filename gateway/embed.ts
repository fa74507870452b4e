import type { IncomingMessage, ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Express } from 'express';
import { createGateway } from './compose.ts';
import { type ConfigInput, formatFault, loadConfig } from './config.ts';
import { createLogger } from './telemetry/logger.ts';

/** A gateway inside a server of your own. */
export type Banyan = {
  /** Answers every request it is given: `app.use(banyan.handler)`, last, and with no body parser in front. Never calls `next`. */
  handler(req: IncomingMessage, res: ServerResponse, next?: (error?: unknown) => void): void;
  /** For WebSocket: `server.on('upgrade', banyan.upgrade)`. */
  upgrade(req: IncomingMessage, socket: Socket, head: Buffer): void;
  /** The admin API, to be mounted behind your own protection or listened on. */
  readonly admin: Express;
  /** Finishes what is under way and closes every connection. The server itself is yours to close, first. */
  close(): Promise<void>;
};

/**
 * Embeds the gateway: everything but its listeners, which are yours (`listen`, `client` and `drain` do not apply).
 * @throws AppError `bad-request` listing every fault of the configuration; `store-unavailable`
 */
export const createBanyan = async (input: ConfigInput): Promise<Banyan> => {
  const result = await loadConfig({ object: input });
  if (!result.ok) throw new AppError('bad-request', result.faults.map(formatFault).join('\n'));
  const { version } = createRequire(import.meta.url)('./package.json') as { version: string };
  const gateway = await createGateway({ config: result.config, version, log: createLogger({ level: result.config.log.level }) });
  await gateway.open();
  return {
    handler: (req, res) => gateway.handler(req, res),
    upgrade: gateway.upgrade,
    admin: gateway.admin,
    close: async () => void (await gateway.stop()),
  };
};
