import type { Front, FrontHost } from './front.ts';

const serverOf = ({ servername, verify }: Front, { kind, at, host }: FrontHost, i: number): string => {
  const tls =
    kind === 'https'
      ? ` ssl sni str(${servername ?? host}) ${verify ? `verify required ca-file @system-ca verifyhost ${servername ?? host}` : 'verify none'}`
      : '';
  return `  server legacy${i + 1} ${kind === 'unix' ? `unix@${at}` : at}${tls}`;
};

/**
 * A whole file for HAProxy 2.4 and newer. It matches on the path as the client wrote it, so that whatever could be another spelling of an owned path
 * (an escape, a doubled slash, a dot segment) meets the gateway too.
 */
export const haproxyOf = (front: Front): string => {
  const words = (exact: boolean): string =>
    front.owned
      .filter((one) => one.exact === exact)
      .map(({ path }) => path)
      .join(' ');
  const [exact, begins] = [words(true), words(false)];
  const rules = [...(exact === '' ? [] : [`  acl owned path ${exact}`]), ...(begins === '' ? [] : [`  acl owned path_beg ${begins}`])];
  return `# HAProxy in front of Banyan, written by \`banyan export haproxy\`. Only what a context owns meets the gateway (${front.owners.join(', ') || 'no context yet'});
# the rest goes to the monolith at once. Write it anew whenever routes change. Let the gateway believe what is set below: trustedProxies: [ ADDRESS OF THIS PROXY ].
global
  tune.bufsize 131072

defaults
  mode http
  option http-keep-alive
  http-reuse safe
  retries 1
  retry-on conn-failure
  timeout connect 2s
  timeout client 65s
  timeout server 5m
  timeout tunnel 1h
  timeout http-request 10s

frontend banyan_front
  bind ${front.listen}
  # behind another proxy: keep the field that came, and add-header instead of set-header
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http unless { ssl_fc }
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request del-header Forwarded
${rules.length === 0 ? '' : `${rules.join('\n')}\n  acl spelling path_sub // /. %\n  use_backend banyan_gateway if owned or spelling\n`}  default_backend banyan_legacy

backend banyan_gateway
${front.gateways.map((at, i) => `  server gateway${i + 1} ${at}${front.gateways.length > 1 ? ' check' : ''}`).join('\n')}

backend banyan_legacy
${front.legacy.map((host, i) => serverOf(front, host, i)).join('\n')}
`;
};
