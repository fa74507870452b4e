import { BlockList, isIP } from 'node:net';
import type { Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import type { ContextConfig, OverrideCondition } from './config.ts';
import type { ContextFlag } from './core/decide.ts';
import type { Exchange, Live, LiveContext, OverrideRule } from './exchange.ts';
import type { Claims } from './identity/tokens.ts';
import { headerOf } from './proxy/headers.ts';
import { cookieOf, stickyOf, textOf } from './sticky.ts';

/** The blocks as one list to look addresses up in. */
export const blocksOf = (blocks: readonly string[]): BlockList => {
  const list = new BlockList();
  for (const block of blocks) {
    const [address = '', bits] = block.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(bits), family);
  }
  return list;
};

export const isIn = (list: BlockList, address: string): boolean => {
  const version = isIP(address);
  return version !== 0 && list.check(address, version === 6 ? 'ipv6' : 'ipv4');
};

/** A claim that is a list holds when one of its items is the value. */
const claims = (value: unknown, wanted: string | null): boolean => {
  if (value === undefined || value === null || value === false) return false;
  if (wanted === null) return true;
  return Array.isArray(value) ? value.some((item) => String(item) === wanted) : typeof value !== 'object' && String(value) === wanted;
};

const ruleOf = (to: Side, { from, name, value }: OverrideCondition): OverrideRule => {
  const fits = (found: string | undefined): boolean => found !== undefined && (value === null || textOf(found) === value);
  switch (from) {
    case 'header':
      return { to, holds: (call) => fits(headerOf(call.headers, name)) };
    case 'cookie':
      return { to, holds: (call) => fits(cookieOf(headerOf(call.headers, 'cookie'), name)) };
    case 'jwt':
      return { to, holds: (_call, of) => of !== null && Object.hasOwn(of, name) && claims(of[name], value) };
    case 'cidr': {
      const list = blocksOf([name]);
      return { to, holds: (call) => isIn(list, call.clientAddress) };
    }
  }
};

/** The part of a context that says who its clients are. @param signed does the gateway take override tokens? @param provider is there one to ask? */
export const compileClients = (
  name: string,
  context: ContextConfig,
  signed: boolean,
  provider: boolean,
): Pick<LiveContext, 'stickyKey' | 'overrides' | 'jwt' | 'provided' | 'plain'> => {
  const jwt = {
    key: context.stickyKey.some(({ from }) => from === 'jwt'),
    override: context.overrides.some(({ when }) => when.from === 'jwt'),
  };
  const provided = context.openfeature === null || !provider ? null : { ...context.openfeature, flag: context.openfeature.flag ?? name };
  return {
    stickyKey: context.stickyKey,
    overrides: context.overrides.map(({ to, when }) => ruleOf(to, when)),
    jwt,
    provided,
    plain: !jwt.key && !signed && provided === null && context.overrides.length === 0,
  };
};

/** What is known of a client, to be filled in. */
export type Client = Pick<Exchange, 'call' | 'params' | 'operation' | 'sticky' | 'claims' | 'override' | 'provided'>;

/** `Bearer` is Authorization's way of saying what comes; elsewhere the token may stand alone. */
const bearerOf = (value: string | undefined, scheme: boolean): string | null => {
  const found = value === undefined ? null : /^(?:(bearer) +)?([^\s]+)$/i.exec(value.trim());
  return found !== null && (!scheme || found[1] !== undefined) ? found[2]! : null;
};

const claimsOf = ({ call }: Client, { tokens }: Live): Claims | null | Promise<Claims | null> => {
  if (tokens === null) return null;
  const { header, reader } = tokens;
  const token = bearerOf(headerOf(call.headers, header), header === 'authorization');
  return token === null ? null : reader.read(token);
};

const isBeforeCutover = ({ stage }: ContextFlag): boolean => stage === 'legacy' || stage === 'shadow' || stage === 'canary';

/**
 * Finds out who asks and who may decide for it: claims, override, and in canary what a provider says. Gives a promise only when a signature must be
 * verified or a provider asked about somebody new. `pinned` = some client of this context is pinned, so that its key matters outside canary too.
 */
export const recognise = (
  x: Client,
  context: LiveContext,
  flag: ContextFlag,
  live: Live,
  pinned: boolean,
  issue: boolean,
): Promise<void> | null => {
  const query = x.operation === 'query';
  const overridable = query && !flag.killed && isBeforeCutover(flag);
  const canary = flag.stage === 'canary';
  const keyed = context.jwt.key && (!query || canary || pinned);

  const providedFor = (): Promise<void> | null => {
    if (!canary || !overridable || x.override !== null || context.provided === null || live.provider === null) return null;
    if (x.sticky.key === null) x.sticky = stickyOf(x, context.stickyKey, issue);
    if (x.sticky.key === null) return null;
    const said = live.provider.decide(context.name, context.salt, context.provided, x.sticky.key);
    if (!(said instanceof Promise)) {
      x.provided = said;
      return null;
    }
    return said.then((late) => {
      x.provided = late;
    });
  };

  const overridden = (): Promise<void> | null => {
    if (!overridable) return null;
    const { asked } = x.call;
    const side = asked !== null && live.overrideTokens !== null ? live.overrideTokens.sideFor(context.name, asked.side, asked.token) : null;
    const settle = (allowed: Side | null): Promise<void> | null => {
      x.override = allowed ?? context.overrides.find((rule) => rule.holds(x.call, x.claims))?.to ?? null;
      return providedFor();
    };
    return side instanceof Promise ? side.then(settle).then(() => undefined) : settle(side);
  };

  if (keyed || (overridable && context.jwt.override)) {
    const found = claimsOf(x, live);
    if (found instanceof Promise)
      return found.then((late) => {
        x.claims = late;
        return overridden() ?? undefined;
      });
    x.claims = found;
  }
  return overridden();
};
