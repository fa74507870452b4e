import { crc32 } from 'node:zlib';

const STRING = 7;

const header = (name: string, value: string): Buffer => {
  const text = Buffer.from(value);
  const out = Buffer.alloc(1 + name.length + 3 + text.length);
  let at = out.writeUInt8(name.length, 0);
  at += out.write(name, at, 'latin1');
  at = out.writeUInt8(STRING, at);
  at = out.writeUInt16BE(text.length, at);
  text.copy(out, at);
  return out;
};

/** One message of `application/vnd.amazon.eventstream`: lengths, headers and payload, each part under its own CRC-32 (smithy.io/2.0/aws/amazon-eventstream.html). */
const message = (headers: readonly (readonly [string, string])[], payload: string): Buffer => {
  const head = Buffer.concat(headers.map(([name, value]) => header(name, value)));
  const body = Buffer.from(payload);
  const total = 12 + head.length + body.length + 4;
  const out = Buffer.alloc(total);
  out.writeUInt32BE(total, 0);
  out.writeUInt32BE(head.length, 4);
  out.writeUInt32BE(crc32(out.subarray(0, 8)), 8);
  head.copy(out, 12);
  body.copy(out, 12 + head.length);
  out.writeUInt32BE(crc32(out.subarray(0, total - 4)), total - 4);
  return out;
};

export const eventMessage = (type: string, payload: object): Buffer =>
  message(
    [
      [':message-type', 'event'],
      [':event-type', type],
      [':content-type', 'application/json'],
    ],
    JSON.stringify(payload),
  );

export const exceptionMessage = (type: string, text: string): Buffer =>
  message(
    [
      [':message-type', 'exception'],
      [':exception-type', type],
      [':content-type', 'application/json'],
    ],
    JSON.stringify({ message: text }),
  );
