import { createHmac, randomUUID } from 'node:crypto';
import type { RampDeps, Webhook } from './ports.ts';

/** What a hook is told. Unknown members may be added. */
export type HookMessage = {
  readonly event: Webhook['on'];
  /** The same for every delivery about one step: a receiver can tell a repeat. */
  readonly id: string;
  readonly contexts: readonly string[];
  readonly from: { readonly stage: string; readonly percent: number };
  readonly to: { readonly stage: string; readonly percent: number };
  readonly reasons: readonly string[];
};

/** `t=UNIX,v1=HEX`: HMAC-SHA256 over `UNIX.BODY`, so that an old message cannot be sent again as a new one. */
export const signatureOf = (secret: string, unixSeconds: number, body: string): string =>
  `t=${unixSeconds},v1=${createHmac('sha256', secret).update(`${unixSeconds}.${body}`).digest('hex')}`;

const MAX_TEXT = 200;

/** Asks or tells the hooks of one event. Resolves to why the first of them says no, or null; never rejects. */
export const callHooks = async (
  deps: Pick<RampDeps, 'onWebhook' | 'log'>,
  hooks: readonly Webhook[],
  message: HookMessage,
  stopping: AbortSignal,
): Promise<string | null> => {
  const call = async (hook: Webhook): Promise<string | null> => {
    const { host } = new URL(hook.url);
    const body = JSON.stringify({ ...message, at: new Date().toISOString() });
    try {
      const response = await fetch(hook.url, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          'user-agent': 'banyan',
          'banyan-delivery': randomUUID(),
          'banyan-signature': signatureOf(hook.secret, Math.floor(Date.now() / 1000), body),
        },
        body,
        // a redirect would carry the message to a place that nobody configured
        redirect: 'manual',
        signal: AbortSignal.any([AbortSignal.timeout(hook.timeout), stopping]),
      });
      await response.body?.cancel();
      if (response.ok) {
        deps.onWebhook(hook.on, 'ok');
        return null;
      }
      deps.onWebhook(hook.on, 'refused');
      return `the hook at ${host} answers ${response.status}`;
    } catch (error) {
      deps.onWebhook(hook.on, 'failed');
      const late = error instanceof Error && error.name === 'TimeoutError';
      const cause = error instanceof Error ? ((error.cause as NodeJS.ErrnoException | undefined)?.code ?? error.message) : 'unknown';
      return `the hook at ${host} ${late ? `has not answered in ${hook.timeout} ms` : `cannot be reached (${cause.slice(0, MAX_TEXT)})`}`;
    }
  };
  const wanted = hooks.filter(({ on }) => on === message.event);
  const answers = await Promise.all(wanted.map(call));
  for (const why of answers)
    if (why !== null) deps.log.warn({ event: message.event, contexts: message.contexts, why }, 'a hook of the ramp');
  return answers.find((why) => why !== null) ?? null;
};
