import { matchPath } from '../core/event-mapping.ts';

/** What the places of a path stand for. */
export type Places = {
  /** Idempotency key. */
  readonly key: string;
  /** METHOD and pattern; its parameters are places too. */
  readonly route: string;
  readonly target: string;
  readonly aggregate?: string | null;
};

/** `/api/orders/{id}?ref={key}` with encoded values; null when a place has none. */
export const fillTemplate = (template: string, { key, route, target, aggregate = null }: Places): string | null => {
  const params = matchPath(route.slice(route.indexOf(' ') + 1), target) ?? {};
  let complete = true;
  const path = template.replace(/\{([^{}]+)\}/g, (_, name: string) => {
    // a parameter of the route goes before what we call by the same name
    const value = Object.hasOwn(params, name) ? params[name] : name === 'key' ? key : name === 'aggregate' ? aggregate : undefined;
    if (value === undefined || value === null) complete = false;
    return encodeURIComponent(value ?? '');
  });
  return complete ? path : null;
};
