import { type AddressInfo, createServer, type Socket } from 'node:net';
import { valuesOf } from './strict-message.ts';
import { readRequest, type StrictRequest } from './strict-request.ts';

/** A request that an upstream was sent. */
export type Sighting = {
  /** Unlike every other one's; goes back in `X-Nonce`. */
  readonly nonce: number;
  readonly request: StrictRequest;
  /** False = the connection ended in its body. */
  readonly whole: boolean;
};

/** What the upstream does with a whole request. Bytes are Latin-1; `after` says what becomes of the connection. */
export type UpstreamAnswer = {
  readonly writes: readonly string[];
  readonly after: 'keep' | 'fin' | 'reset';
  /** False = whoever sends another request on this connection gets what belongs to nobody. */
  readonly reusable?: boolean;
};

export type FuzzUpstream = {
  readonly port: number;
  /** Sightings by the client's address, which no client can choose for itself (X-Forwarded-For as the proxy sets it). */
  readonly sightings: Map<string, Sighting[]>;
  /** What a strict reader was sent and could not take. */
  readonly violations: string[];
  readonly requests: number;
  readonly connections: number;
  close(): Promise<void>;
};

/** Answers with the nonce, framed in each of the ways that there are. */
export const echo = ({ nonce, request }: Sighting): UpstreamAnswer => {
  const body = `nonce ${nonce}`;
  const head = `X-Nonce: ${nonce}\r\n`;
  const ok = `HTTP/1.1 200 OK\r\n${head}`;
  const withBody = (fields: string, content: string): string => `${ok}${fields}\r\n${request.method === 'HEAD' ? '' : content}`;
  switch (nonce % 8) {
    case 0:
      return {
        writes: [
          withBody('Transfer-Encoding: chunked\r\n', `5\r\nnonce\r\n${(body.length - 5).toString(16)}\r\n${body.slice(5)}\r\n0\r\n\r\n`),
        ],
        after: 'keep',
      };
    case 1:
      return { writes: [withBody('Connection: close\r\n', ''), request.method === 'HEAD' ? '' : body], after: 'fin' };
    case 2:
      return {
        writes: ['HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n', withBody(`Content-Length: ${body.length}\r\n`, body)],
        after: 'keep',
      };
    case 3:
      return { writes: [`HTTP/1.1 204 No Content\r\n${head}\r\n`], after: 'keep' };
    default:
      return { writes: [withBody(`Content-Length: ${body.length}\r\n`, body)], after: 'keep' };
  }
};

/** A server that reads strictly, notes what it reads under a fresh nonce and answers as `react` says. */
export const openFuzzUpstream = async (react: (sighting: Sighting) => UpstreamAnswer, nonceOf: () => number): Promise<FuzzUpstream> => {
  const sightings = new Map<string, Sighting[]>();
  const violations: string[] = [];
  const sockets = new Set<Socket>();
  let requests = 0;

  const note = (request: StrictRequest, whole: boolean): Sighting => {
    requests++;
    const sighting = { nonce: nonceOf(), request, whole };
    const address = valuesOf(request.fields, 'x-forwarded-for').join(', ');
    const list = sightings.get(address);
    if (list === undefined) sightings.set(address, [sighting]);
    else list.push(sighting);
    return sighting;
  };

  const serve = (socket: Socket): void => {
    let text = '';
    let continued = false;
    let over = false;
    let answering = false;
    let reusable = true;
    let last: UpstreamAnswer | null = null;
    const violation = (why: string): void => {
      violations.push(`${why}: ${JSON.stringify(text.slice(0, 600))}`);
      over = true;
      socket.destroy();
    };
    const finish = ({ after, reusable: again = true }: UpstreamAnswer): void => {
      answering = false;
      if (after === 'fin') socket.end();
      else if (after === 'reset') socket.resetAndDestroy();
      if (after !== 'keep') over = true;
      reusable = again;
    };
    const answer = (what: UpstreamAnswer): void => {
      last = what;
      const [first = '', ...more] = what.writes;
      if (first !== '') socket.write(first, 'latin1');
      if (more.length === 0) {
        finish(what);
        return;
      }
      answering = true;
      const next = (): void => {
        const write = more.shift();
        if (write === undefined || socket.destroyed) finish(what);
        else {
          if (write !== '') socket.write(write, 'latin1');
          setImmediate(next);
        }
        if (!answering) read();
      };
      setImmediate(next);
    };
    const read = (): void => {
      while (!over && !answering && text !== '') {
        if (!reusable) {
          violation(`a request on a connection that cannot carry one, behind ${JSON.stringify(last)}`);
          return;
        }
        const reading = readRequest(text);
        if (reading.kind === 'invalid') {
          violation(reading.why);
          return;
        }
        if (reading.kind === 'more') {
          if (reading.head?.expects === true && !continued) {
            continued = true;
            socket.write('HTTP/1.1 100 Continue\r\n\r\n');
          }
          return;
        }
        continued = false;
        text = text.slice(reading.next);
        answer(react(note(reading.request, true)));
      }
    };
    const ended = (): void => {
      if (over || text === '') return;
      const reading = readRequest(text);
      if (reading.kind === 'more' && reading.head !== null) note(reading.head, false);
      else violation('part of a head');
      over = true;
    };
    socket.setNoDelay(true);
    socket.on('data', (chunk) => {
      if (over) return;
      text += chunk.toString('latin1');
      read();
    });
    socket.on('error', () => {});
    socket.on('end', () => {
      ended();
      socket.end();
    });
    socket.on('close', () => {
      ended();
      sockets.delete(socket);
    });
  };

  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    serve(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen({ port: 0, host: '127.0.0.1' }, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    sightings,
    violations,
    get requests() {
      return requests;
    },
    get connections() {
      return sockets.size;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
};
