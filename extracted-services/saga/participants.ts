import { z } from 'zod';

export type Outcome = { readonly outcome: 'done' | 'refused' | 'unknown'; readonly why?: string | undefined };

/** The services that do the steps. No call rejects: what is not known is `unknown`. */
export type Participants = {
  readonly act: (participant: string, id: string, action: string, saga: string, data: object) => Promise<Outcome>;
  /** `absent` = it never arrived. */
  readonly ask: (participant: string, id: string) => Promise<Outcome | { readonly outcome: 'absent' }>;
  readonly undo: (participant: string, id: string, action: string, saga: string, data: object) => Promise<Outcome>;
};

const answerSchema = z.object({ outcome: z.enum(['done', 'refused', 'unknown']), why: z.string().optional() });

export type ParticipantsOptions = {
  /** By the participant's name. */
  readonly urls: Readonly<Record<string, string>>;
  /** That the participants ask for; the same for all. */
  readonly token?: string | undefined;
  readonly timeoutMs: number;
};

/** Over HTTP, see `participantRoutes` of the kit. */
export const createParticipants = ({ urls, token, timeoutMs }: ParticipantsOptions): Participants => {
  const authorization: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const call = async (participant: string, id: string, method: string, body?: object): Promise<Outcome | { outcome: 'absent' }> => {
    const url = urls[participant];
    if (url === undefined) return { outcome: 'unknown', why: `nobody said where ${participant} is` };
    try {
      const response = await fetch(`${url}/_saga/${id}`, {
        method,
        signal: AbortSignal.timeout(timeoutMs),
        headers: { ...authorization, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (response.status === 404 && method === 'GET') return { outcome: 'absent' };
      if (!response.ok) return { outcome: 'unknown', why: `${participant} answered ${response.status}` };
      return answerSchema.parse(JSON.parse(text));
    } catch (error) {
      return { outcome: 'unknown', why: `${participant}: ${error instanceof Error ? error.message : String(error)}`.slice(0, 200) };
    }
  };
  const certain = (outcome: Outcome | { outcome: 'absent' }): Outcome => (outcome.outcome === 'absent' ? { outcome: 'unknown' } : outcome);
  return {
    act: async (participant, id, action, saga, data) => certain(await call(participant, id, 'PUT', { action, saga, data })),
    ask: (participant, id) => call(participant, id, 'GET'),
    undo: async (participant, id, action, saga, data) => certain(await call(participant, id, 'DELETE', { action, saga, data })),
  };
};
