import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { KinesisClient } from '@aws-sdk/client-kinesis';
import { NodeHttpHandler } from '@smithy/node-http-handler';

const common = ({ region, endpoint }: { region: string; endpoint?: string | undefined }) => ({
  region,
  ...(endpoint === undefined ? {} : { endpoint }),
  ...(endpoint !== undefined && !process.env.AWS_ACCESS_KEY_ID ? { credentials: { accessKeyId: 'local', secretAccessKey: 'local' } } : {}),
  maxAttempts: 1,
});

/** The SDK as it comes, over HTTP/2: the only way in which SubscribeToShard is served. For nothing else, see `createKinesis`. */
export const createFanOutKinesis = (options: { region: string; endpoint?: string | undefined }): KinesisClient =>
  new KinesisClient(common(options));

/**
 * A client over HTTP/1.1 with kept-alive sockets. The SDK's own choice, HTTP/2, opens a session for each request and cannot talk to endpoints without TLS.
 * With an `endpoint` and no credentials in the environment it uses dummy ones, so an emulator needs no set-up. It never retries: the consumer does.
 */
export const createKinesis = (options: { region: string; endpoint?: string | undefined }): KinesisClient =>
  new KinesisClient({
    ...common(options),
    requestHandler: new NodeHttpHandler({
      connectionTimeout: 2000,
      requestTimeout: 15_000,
      httpAgent: new HttpAgent({ keepAlive: true, maxSockets: 64 }),
      httpsAgent: new HttpsAgent({ keepAlive: true, maxSockets: 64 }),
    }),
  });
