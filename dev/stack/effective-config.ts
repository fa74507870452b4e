import { expandText } from '@banyan/contracts/config-values.ts';
import { type Document, isMap, parseDocument } from 'yaml';

/** Where the embedded parts listen. */
export type Embedded = {
  readonly store: string;
  readonly kinesis: string;
  readonly monolith: string | null;
  readonly legacyDatabase: string | null;
  /** Services that no context names, by name. */
  readonly services: Readonly<Record<string, string>>;
};

/** What the stack must know before it starts anything. */
export type Outline = {
  readonly dataDir: string;
  readonly postgresPort: number;
  readonly kinesisPort: number;
  readonly monolithPort: number;
  readonly notificationPort: number;
  readonly sagaPort: number;
  readonly store: string | null;
  readonly streamEndpoint: string | null;
  readonly region: string;
  readonly facts: string;
  readonly commands: string;
  /** Absent = the demo monolith, its adapter and services are started too. */
  readonly legacyUrl: string | null;
  readonly legacyDatabase: string | null;
  readonly adapterUrl: string;
  readonly contexts: readonly { readonly name: string; readonly extractedUrl: string | null }[];
};

type Env = Readonly<Record<string, string | undefined>>;

const scalar = (doc: Document, env: Env, path: string[]): string | null => {
  const value = doc.getIn(path);
  if (value === undefined || value === null) return null;
  const { text } = expandText(String(value), { env, file: () => undefined });
  return text === '' ? null : text;
};

/** Reads only what the stack itself needs; `banyan validate` has judged the file before. @throws Error when it is no YAML mapping. */
export const outlineOf = (text: string, env: Env): Outline => {
  const doc = parseDocument(text);
  if (doc.errors.length > 0 || !isMap(doc.contents)) throw new Error('the configuration must be a YAML mapping');
  const at = (...path: string[]): string | null => scalar(doc, env, path);
  const contexts = doc.get('contexts');
  const urls = doc.getIn(['legacy', 'urls', 0]);
  return {
    dataDir: at('dev', 'dataDir') ?? '.banyan',
    postgresPort: Number(at('dev', 'postgresPort') ?? 5433),
    kinesisPort: Number(at('dev', 'kinesisPort') ?? 4567),
    monolithPort: Number(at('dev', 'monolithPort') ?? 3000),
    notificationPort: Number(at('dev', 'notificationPort') ?? 4003),
    sagaPort: Number(at('dev', 'sagaPort') ?? 4006),
    store: at('store'),
    streamEndpoint: at('streams', 'endpoint'),
    region: at('streams', 'region') ?? 'eu-west-1',
    facts: at('streams', 'facts') ?? 'domain-events',
    commands: at('streams', 'commands') ?? 'order-commands',
    legacyUrl: at('legacy', 'url') ?? (urls ? String(urls) : null),
    legacyDatabase: at('adapter', 'legacyDatabase'),
    adapterUrl: at('adapter', 'url') ?? 'http://127.0.0.1:8090',
    contexts: isMap(contexts)
      ? contexts.items.map((item) => {
          const name = String(item.key);
          return { name, extractedUrl: at('contexts', name, 'extracted', 'url') };
        })
      : [],
  };
};

/** The file with the embedded parts filled in where it is silent. Variables stay as they are: the readers expand them. */
export const effectiveText = (text: string, outline: Outline, embedded: Embedded): string => {
  const doc = parseDocument(text);
  if (!outline.store) doc.setIn(['store'], embedded.store);
  if (!outline.streamEndpoint) doc.setIn(['streams', 'endpoint'], embedded.kinesis);
  if (!outline.legacyUrl && embedded.monolith) doc.setIn(['legacy', 'url'], embedded.monolith);
  if (!outline.legacyDatabase && embedded.legacyDatabase) doc.setIn(['adapter', 'legacyDatabase'], embedded.legacyDatabase);
  if (!doc.hasIn(['seal', 'key'])) doc.setIn(['seal', 'key'], '$' + '{BANYAN_SEAL_KEY:-}');
  for (const [name, url] of Object.entries(embedded.services)) if (!doc.hasIn(['services', name])) doc.setIn(['services', name], url);
  return doc.toString();
};
