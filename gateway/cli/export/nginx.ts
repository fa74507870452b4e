import type { Front, FrontHost } from './front.ts';

const serverOf = ({ kind, at }: FrontHost): string => `  server ${kind === 'unix' ? `unix:${at}` : at};`;

const tlsOf = ({ legacy, servername, verify }: Front): string[] => {
  const [first] = legacy;
  if (first?.kind !== 'https') return [];
  return [
    '    proxy_ssl_server_name on;',
    `    proxy_ssl_name ${servername ?? first.host};`,
    ...(verify
      ? [
          '    proxy_ssl_verify on;',
          '    proxy_ssl_verify_depth 4;',
          '    proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;',
        ]
      : ['    proxy_ssl_verify off;']),
  ];
};

/** A file for nginx's `conf.d`: included at the level of `http`. nginx matches on the decoded path with dot segments and `//` collapsed, as the gateway does. */
export const nginxOf = (front: Front): string => {
  const scheme = front.legacy[0]?.kind === 'https' ? 'https' : 'http';
  const owned = front.owned.filter(({ path, exact }) => exact || path !== '/');
  const everything = front.owned.some(({ path, exact }) => !exact && path === '/');
  return `# nginx in front of Banyan, written by \`banyan export nginx\`. Only what a context owns meets the gateway (${front.owners.join(', ') || 'no context yet'});
# the rest goes to the monolith at once. Write it anew whenever routes change. To be included at the level of http, e.g. as conf.d/banyan.conf.
# Let the gateway believe what is set below: trustedProxies: [ ADDRESS OF THIS PROXY ].
map $http_upgrade $banyan_connection { default upgrade; "" ""; }
upstream banyan_gateway {
${front.gateways.map((at) => `  server ${at};`).join('\n')}
  keepalive 64;
}
upstream banyan_legacy {
${front.legacy.map(serverOf).join('\n')}
  keepalive 64;
}
server {
  listen ${front.listen};
  merge_slashes on; # a path must not slip past the gateway by a doubled slash
  client_max_body_size 0;
  proxy_http_version 1.1;
  proxy_buffering off;
  proxy_request_buffering off;
  proxy_next_upstream error; # never a second time what somebody may have begun to work on
  proxy_read_timeout 5m;
  proxy_set_header Host $http_host;
  proxy_set_header Connection $banyan_connection;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header X-Forwarded-For $remote_addr; # behind another proxy: $proxy_add_x_forwarded_for
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Forwarded-Port $server_port;
  proxy_set_header Forwarded "";
${owned.map(({ path, exact }) => `  location ${exact ? '=' : '^~'} ${path} { proxy_pass http://banyan_gateway; }`).join('\n')}
  location / {
${[...(everything ? [] : tlsOf(front)), `    proxy_pass ${everything ? 'http://banyan_gateway' : `${scheme}://banyan_legacy`};`].join('\n')}
  }
}
`;
};
