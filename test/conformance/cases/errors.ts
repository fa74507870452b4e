import { type Case, get } from '../case.ts';

const PROBLEM = { 'content-type': 'application/problem+json' } as const;

/** What the proxy says when it has to speak for itself. Promises of Banyan's; nobody else has to. */
export const errors: readonly Case[] = [
  {
    id: 'error-502',
    level: 'own',
    cite: 'RFC 9457 3; RFC 9209 2.3',
    it: 'says in problem+json and Proxy-Status that the upstream broke off',
    send: get('/a'),
    upstream: [['body', 'reset']],
    want: {
      answers: [
        { status: 502, has: { ...PROBLEM, 'proxy-status': /^banyan; error=connection_terminated/ }, body: /"code":"upstream-reset"/ },
      ],
      seen: 'any',
    },
  },
  {
    id: 'error-502-garbage',
    level: 'own',
    cite: 'RFC 9209 2.3.18',
    it: 'says that the upstream speaks no HTTP',
    send: get('/a'),
    upstream: [['body', 'what?\r\n\r\n', 'end']],
    want: { answers: [{ status: 502, has: { ...PROBLEM, 'proxy-status': /^banyan; error=http_protocol_error/ } }], seen: 'any' },
  },
  {
    id: 'error-504',
    level: 'own',
    cite: 'RFC 9209 2.3.14',
    it: 'says that the upstream took too long',
    setup: 'impatient',
    send: get('/a'),
    upstream: [['body', 'gone']],
    want: { answers: [{ status: 504, has: { ...PROBLEM, 'proxy-status': /^banyan; error=http_response_timeout/ } }] },
  },
  {
    id: 'error-400',
    level: 'own',
    cite: 'RFC 9457 3',
    it: 'says in problem+json why it refuses',
    send: 'GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
    want: {
      answers: [{ status: 400, has: { ...PROBLEM, 'proxy-status': /^banyan; error=http_request_error/ }, body: /"detail":"Host/ }],
      seen: [],
    },
  },
  {
    id: 'error-400-parser',
    level: 'own',
    cite: 'RFC 9457 3',
    it: 'does so too for what its parser refuses',
    send: 'GET /a HTTP/1.1\r\nHost: a\r\nX A: 1\r\n\r\n',
    want: { answers: [{ status: 400, has: { ...PROBLEM, connection: 'close' } }], seen: [] },
  },
  {
    id: 'error-tells-nothing',
    level: 'own',
    cite: 'CWE-209; http-proxy-middleware names host and path',
    it: 'names neither host nor port of an upstream in an error',
    send: get('/secret-path'),
    upstream: [['body', 'reset']],
    want: { answers: [{ status: 502, body: /^(?!.*(?:127\.0\.0\.1|secret-path)).*$/s }], seen: 'any' },
    or: [{ answers: [{ status: [500, 503, 504], body: /^(?!.*(?:127\.0\.0\.1|secret-path)).*$/s }], seen: 'any' }],
  },
  {
    id: 'error-no-store',
    level: 'own',
    cite: 'RFC 9111 5.2.2.5',
    it: 'lets nobody store its errors',
    send: get('/a'),
    upstream: [['body', 'reset']],
    want: { answers: [{ status: 502, has: { 'cache-control': 'no-store' } }], seen: 'any' },
  },
];
