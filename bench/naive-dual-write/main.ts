import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { KinesisClient, PutRecordCommand } from '@aws-sdk/client-kinesis';
import { NodeHttpHandler } from '@smithy/node-http-handler';

/** The pattern as it is usually written down: publish the event, write to legacy, publish a compensation when that fails. Here to be measured, never to be used. */
const [port, legacy, endpoint] = process.argv.slice(2) as [string, string, string];
const kinesis = new KinesisClient({
  endpoint,
  region: 'eu-west-1',
  credentials: { accessKeyId: 'n', secretAccessKey: 'n' },
  requestHandler: new NodeHttpHandler(),
});
const publish = async (subject: string, ref: string, cause?: string): Promise<string> => {
  const id = randomUUID();
  const more = cause === undefined ? {} : { phase: 'compensated', causationid: cause };
  const head = {
    specversion: '1.0',
    id,
    source: '/banyan/order/legacy',
    type: 'storm.happened.v1',
    subject,
    time: new Date().toISOString(),
  };
  const data = {
    ...head,
    datacontenttype: 'application/json',
    partitionkey: subject,
    sequence: '0'.repeat(17) + '1',
    epoch: 1,
    origin: 'legacy',
    ...more,
    data: { ref },
  };
  await kinesis.send(new PutRecordCommand({ StreamName: 'domain-events', PartitionKey: subject, Data: Buffer.from(JSON.stringify(data)) }));
  return id;
};
const server = createServer(async (req, res) => {
  const key = String(req.headers['idempotency-key']);
  const subject = /^\/api\/(?:accounts|notes)\/([^/]+)/.exec(req.url!)?.[1] ?? key;
  const headers = { 'idempotency-key': key };
  try {
    const event = req.method === 'GET' ? '' : await publish(subject, key);
    const answer = await fetch(`${legacy}${req.url}`, { method: req.method!, headers, signal: AbortSignal.timeout(1_000) }).catch(
      () => null,
    );
    if (req.method !== 'GET' && !answer?.ok) await publish(subject, key, event);
    res
      .writeHead(answer?.status ?? 504, { 'content-type': 'application/json' })
      .end(answer ? await answer.text() : '{"code":"upstream-timeout"}');
  } catch {
    res.writeHead(503).end('{"code":"unavailable"}');
  }
});
server.listen(Number(port), '127.0.0.1', () => process.send?.({ type: 'ready', urls: {} }));
