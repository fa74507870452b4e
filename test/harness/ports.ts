import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * A TCP port on 127.0.0.1 that is free now. For programs that must be told their port; whatever can listen on 0 should.
 * The kernel hands such ports out at random, so two callers hardly ever get the same one.
 */
export const freePort = async (): Promise<number> => {
  const server = createServer();
  server.listen({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port was given');
  return address.port;
};
