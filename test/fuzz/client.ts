import { connect } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import type { Script } from './requests.ts';
import type { Verdict } from './strict-request.ts';
import { readResponse, type StrictResponse } from './strict-response.ts';

/** What a client read on one connection. */
export type Heard = {
  readonly answers: readonly StrictResponse[];
  /** What stands behind the last whole answer: the beginning of one more, or no answer at all. */
  readonly rest: string;
  /** `left`: the client had all it waited for and went; `hung`: nothing came in time. */
  readonly end: 'fin' | 'reset' | 'left' | 'hung';
};

/** Reads whole answers, one for each method, then as if to GET. A refusal's body may follow where a HEAD was meant that never was one. */
const readAnswers = (text: string, methods: readonly string[], ended: boolean): { answers: StrictResponse[]; rest: string } => {
  const answers: StrictResponse[] = [];
  let at = 0;
  while (at < text.length) {
    const reading = readResponse(text, at, { method: methods[answers.length] ?? 'GET', ended });
    if (reading.kind !== 'response') break;
    answers.push(reading.response);
    at = reading.next;
  }
  return { answers, rest: text.slice(at) };
};

export type PlayOptions = {
  readonly port: number;
  /** The client's own address, which is how upstreams tell cases apart; undefined where only 127.0.0.1 is there. */
  readonly address: string | undefined;
  readonly patienceMs: number;
};

/** Plays one connection. Settles when it is over; never rejects. */
export const play = (script: Script, verdict: Verdict, options: PlayOptions): Promise<Heard> =>
  new Promise((resolve) => {
    const methods = verdict.requests.map(({ method }) => method);
    const socket = connect({
      port: options.port,
      host: '127.0.0.1',
      allowHalfOpen: true,
      noDelay: true,
      ...(options.address ? { localAddress: options.address } : {}),
    });
    let text = '';
    let finals = 0;
    let at = 0;
    let written = false;
    let end: Heard['end'] = 'reset';
    const patience = setTimeout(() => {
      end = 'hung';
      socket.destroy();
    }, options.patienceMs);

    /** Counts what is whole, so that no answer is read twice. */
    const count = (): void => {
      while (at < text.length) {
        const reading = readResponse(text, at, { method: methods[finals] ?? 'GET', ended: false });
        if (reading.kind !== 'response') return;
        finals++;
        at = reading.next;
      }
    };
    const look = (): void => {
      if (!written || finals < methods.length || socket.destroyed) return;
      if (verdict.end === 'closed') return;
      if (verdict.end !== 'clean' || script.fin) {
        if (!socket.writableEnded) socket.end();
        return;
      }
      // What comes behind the last answer would come now.
      void turn()
        .then(() => turn())
        .then(() => {
          if (socket.destroyed || end === 'fin') return;
          end = 'left';
          socket.destroy();
        });
    };
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      count();
      look();
    });
    socket.on('end', () => {
      end = 'fin';
      socket.end();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(patience);
      // bytes behind a last request that nobody read any more make a reset of the close
      const ended = end === 'fin' || (end === 'reset' && verdict.end === 'closed');
      resolve({ ...readAnswers(text, methods, ended), end });
    });
    socket.on('connect', async () => {
      for (const bytes of script.writes) {
        if (socket.destroyed || !socket.writable) break;
        socket.write(bytes, 'latin1');
        await turn();
      }
      written = true;
      if (script.fin && socket.writable) socket.end();
      look();
    });
  });
