import type { Worker } from 'node:cluster';

/** A connection on its way to a worker, as node:cluster sends it. */
type Handed = { readonly seq: number; readonly handle: { close(): void } };

const handedIn = (message: unknown, handle: unknown): Handed | null => {
  const { act, seq } = (message ?? {}) as { act?: unknown; seq?: unknown };
  const { close } = (handle ?? {}) as { close?: unknown };
  return act === 'newconn' && typeof seq === 'number' && typeof close === 'function' ? { seq, handle: handle as Handed['handle'] } : null;
};

/** What a worker has written last is read long before. */
const LAST_WORDS_MS = 250;

/**
 * Gives the connections that a worker was handed and never took to another one, once it is dead. A worker says that it has a connection before it reads
 * from it, so nobody has heard what the client sent. node:cluster keeps such a connection open in the primary until the worker has spoken; when that
 * dies first, nobody ever closes it and its client waits for ever, nor is `disconnect` emitted (Node 24.21, lib/internal/cluster/round_robin_handle.js
 * and lib/internal/child_process.js). The messages read and made here are not documented: without them everything is as node:cluster leaves it.
 * @param others does another worker listen?
 */
export const redeliverConnections = (worker: Worker, others: () => boolean): void => {
  const under = new Map<number, Handed['handle']>();
  const child = worker.process;
  const send = child.send.bind(child) as (...args: unknown[]) => boolean;
  child.send = ((message: unknown, handle: unknown, ...rest: unknown[]): boolean => {
    const handed = handedIn(message, handle);
    if (handed) under.set(handed.seq, handed.handle);
    return send(message, handle, ...rest);
  }) as typeof child.send;
  child.on('internalMessage', (message: unknown) => {
    const { ack } = (message ?? {}) as { ack?: unknown };
    if (typeof ack === 'number') under.delete(ack);
  });
  let left = false;
  child.once('disconnect', () => {
    left = true;
    for (const [seq, handle] of [...under]) {
      // what a worker says that is shutting down: node:cluster then sends the connection to another
      if (others()) child.emit('internalMessage', { cmd: 'NODE_CLUSTER', ack: seq, accepted: false });
      else handle.close();
    }
    under.clear();
  });
  child.once('exit', () => setTimeout(() => left || child.emit('disconnect'), LAST_WORDS_MS));
};
