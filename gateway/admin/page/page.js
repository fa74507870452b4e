// Shows what the API says. Every text enters through textContent: names and reasons come from people and files.
const EVERY_MS = 2000;
const TOKEN = 'banyan-token';
const at = (id) => document.getElementById(id);

const ask = async (path) => {
  const token = sessionStorage.getItem(TOKEN);
  const response = await fetch(`api/v1${path}`, {
    headers: token ? { authorization: `Bearer ${token}` } : {},
    signal: AbortSignal.timeout(10_000),
  });
  if (response.status === 401) throw Object.assign(new Error('a token is needed'), { login: true });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.detail ?? `the gateway answered ${response.status}`), { code: body.code });
  return body;
};

/** Parts that this gateway does not have, or that are away, leave a dash. */
const maybe = async (path) => {
  try {
    return await ask(path);
  } catch (error) {
    if (error.login) throw error;
    return null;
  }
};

const element = (tag, text, className) => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};

const share = (context) => (context.stage === 'canary' ? `${context.percent} %` : '–');
const rate = (parity) =>
  parity?.rate === null || parity?.rate === undefined ? '–' : `${(parity.rate * 100).toFixed(2)} % of ${parity.compared}`;

/** Unknown and parked writes wait for the reconciler or for a person. */
const unresolvedOf = async (name) => {
  const pages = await Promise.all(
    ['unknown', 'parked'].map((state) => maybe(`/ledger?context=${encodeURIComponent(name)}&state=${state}&limit=500`)),
  );
  if (pages.some((page) => page === null)) return null;
  const count = pages.reduce((sum, page) => sum + page.items.length, 0);
  return { count, more: pages.some((page) => page.next !== null) };
};

const rowOf = async (context) => {
  const [parity, unresolved] = await Promise.all([
    maybe(`/contexts/${encodeURIComponent(context.name)}/parity`),
    unresolvedOf(context.name),
  ]);
  const row = document.createElement('tr');
  const name = element('th', context.group ? `${context.name} (${context.group})` : context.name);
  name.scope = 'row';
  row.append(
    name,
    element('td', context.stage),
    element('td', share(context)),
    element('td', context.killed ? 'killed' : 'no', context.killed ? 'bad' : 'quiet'),
    element('td', context.flip ? context.flip.state : '–'),
    element('td', `${context.breaker.state} (${context.breaker.open}/${context.breaker.of})`, context.breaker.open > 0 ? 'bad' : 'good'),
    element('td', rate(parity), parity?.mismatch > 0 ? 'bad' : ''),
    element('td', unresolved === null ? '–' : `${unresolved.count}${unresolved.more ? '+' : ''}`, unresolved?.count > 0 ? 'bad' : ''),
    element('td', `${new Date(context.updatedAt).toLocaleString()} by ${context.updatedBy}`, 'quiet'),
  );
  return row;
};

const partOf = (name, part, more = '') => {
  const said = !part.configured ? 'not configured' : part.ok ? `ok${more}` : (part.detail ?? 'away');
  return element('li', `${name}: ${said}`, !part.configured ? 'quiet' : part.ok ? 'good' : 'bad');
};

const show = async () => {
  const status = await ask('/status');
  const audit = await maybe('/audit?limit=10');
  const rows = await Promise.all(status.contexts.map(rowOf));
  at('contexts').replaceChildren(...rows);
  at('empty').hidden = rows.length > 0;
  const { backlog } = status.stream;
  at('parts').replaceChildren(
    partOf('Store', status.store),
    partOf(
      'Stream',
      status.stream,
      backlog ? `, ${backlog.depth} facts wait, the oldest for ${Math.round(backlog.oldestAgeMs / 1000)} s` : '',
    ),
    partOf('Adapter', status.adapter),
    element('li', `Gateways: ${status.replicas.filter((replica) => replica.alive).length || 1}`),
  );
  at('audit').replaceChildren(
    ...(audit?.items ?? []).map((row) =>
      element(
        'li',
        `${new Date(row.at).toLocaleString()} · ${row.actor} · ${row.action}${row.context ? ` ${row.context}` : ''} · ${row.reason}`,
      ),
    ),
  );
  at('summary').textContent = `${status.version}, up ${status.uptimeSeconds} s${status.draining ? ', draining' : ''}`;
  at('login').hidden = true;
};

const loop = async () => {
  try {
    await show();
  } catch (error) {
    at('summary').textContent = error.login ? 'Not signed in' : `The gateway does not answer: ${error.message}`;
    if (error.login) at('login').hidden = false;
  }
  setTimeout(loop, document.hidden ? EVERY_MS * 5 : EVERY_MS);
};

at('use-token').addEventListener('click', () => {
  sessionStorage.setItem(TOKEN, at('token').value.trim());
  at('token').value = '';
  void show().catch((error) => {
    at('summary').textContent = error.message;
  });
});
void loop();
