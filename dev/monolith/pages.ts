import { randomBytes, randomUUID } from 'node:crypto';
import type { Request, Response, Router } from 'express';
import express from 'express';
import type { Knex } from 'knex';
import type { User } from './accounts.ts';
import { logIn, logOut, userOf } from './accounts.ts';
import type { ApiDeps } from './api.ts';
import { readOrderRequest } from './api.ts';
import { listProducts } from './catalog.ts';
import { escapeHtml, money, page } from './html.ts';
import type { Order } from './orders.ts';
import { findOrder, listOrders, placeOrder } from './orders.ts';
import { statusOf } from './status.ts';

/** The first cookie of this name, or ''. A NUL is no part of a cookie and the database refuses it. */
const cookie = (req: Request, name: string): string => {
  for (const part of (req.headers.cookie ?? '').split(';')) {
    const [key, ...value] = part.split('=');
    if (key?.trim() === name) return value.join('=').trim().replaceAll('\0', '');
  }
  return '';
};

/** A field of a posted form as text, '' when it is absent or repeated. */
const field = (req: Request, name: string): string => {
  const value = (req.body as Record<string, unknown> | undefined)?.[name];
  return typeof value === 'string' ? value.replaceAll('\0', '') : '';
};

const themeOf = (req: Request): string => (cookie(req, 'theme') === 'dark' ? 'dark' : 'light');

const send = (req: Request, res: Response, title: string, body: string, status = 200): void => {
  res
    .status(status)
    .vary('Cookie')
    .set('Cache-Control', 'private, no-cache')
    .send(page(title, body, themeOf(req)));
};

const currentUser = (db: Knex, req: Request): Promise<User | null> => {
  const session = cookie(req, 'session');
  return session === '' ? Promise.resolve(null) : userOf(db, session);
};

/** Only a path of this shop may follow a login: neither `//host` nor `/\host`, which browsers read as another site. */
const localPath = (value: string): string => (/^\/(?![/\\])[\x21-\x7e]*$/.test(value) ? value : '/account');

const loginForm = (next: string, problem = ''): string => `${problem && `<p role="alert">${escapeHtml(problem)}</p>`}
<form method="post" action="/login"><input type="hidden" name="next" value="${escapeHtml(next)}">
<label>User <input name="user" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button></form>`;

const orderTable = (orders: readonly Order[]): string => `<table><tr><th>Order</th><th>Status</th><th>Total</th><th>Placed</th></tr>
${orders.map((o) => `<tr><td><a href="/orders/${o.id}">${o.id}</a></td><td>${o.status}</td><td>${money(o.total, o.currency)}</td><td>${o.createdAt}</td></tr>`).join('\n')}
</table>`;

const loginRoutes = (router: Router, db: Knex): void => {
  router.get('/login', (req, res) => {
    send(req, res, 'Log in', loginForm(localPath(typeof req.query.next === 'string' ? req.query.next : '')));
  });
  router.post('/login', async (req, res) => {
    const next = localPath(field(req, 'next'));
    const session = await logIn(db, field(req, 'user'), field(req, 'password'));
    if (session === null) return send(req, res, 'Log in', loginForm(next, 'Unknown user or wrong password.'), 401);
    res.cookie('session', session, { httpOnly: true, sameSite: 'lax', path: '/' });
    res.cookie('theme', themeOf(req), { sameSite: 'lax', path: '/', maxAge: 365 * 86_400_000 });
    res.cookie('csrf', randomBytes(16).toString('base64url'), { sameSite: 'strict', path: '/' });
    res.redirect(303, next);
  });
  const leave = async (req: Request, res: Response): Promise<void> => {
    await logOut(db, cookie(req, 'session'));
    res.clearCookie('session', { httpOnly: true, sameSite: 'lax', path: '/' });
    res.clearCookie('csrf', { sameSite: 'strict', path: '/' });
    res.redirect(303, '/');
  };
  router.get('/logout', leave);
  router.post('/logout', leave);
  router.get('/account', async (req, res) => {
    const user = await currentUser(db, req);
    if (!user) return res.redirect(302, '/login?next=/account');
    const orders = await listOrders(db, { userId: user.id, limit: 20 });
    send(
      req,
      res,
      'Account',
      `<p>Hello <b id="user">${escapeHtml(user.name)}</b> (${escapeHtml(user.id)}). <a href="/logout">Log out</a></p>${orderTable(orders)}`,
    );
  });
};

const orderRoutes = (router: Router, { db, placed }: ApiDeps): void => {
  router.get('/orders/new', async (req, res) => {
    const user = await currentUser(db, req);
    if (!user) return res.redirect(302, '/login?next=/orders/new');
    const options = (await listProducts(db)).map(
      (p) => `<option value="${p.id}">${escapeHtml(p.name)}, ${money(p.price, p.currency)}</option>`,
    );
    send(
      req,
      res,
      'New order',
      `<form method="post" action="/orders"><input type="hidden" name="ref" value="${randomUUID()}">
<input type="hidden" name="csrf" value="${escapeHtml(cookie(req, 'csrf'))}">
<label>Article <select name="productId">${options.join('')}</select></label>
<label>Quantity <input name="quantity" type="number" min="1" max="1000" value="1"></label>
<button>Order</button></form>`,
    );
  });
  router.post('/orders', async (req, res) => {
    const user = await currentUser(db, req);
    if (!user) return res.redirect(303, '/login?next=/orders/new');
    // Forms that were saved before the token existed carry none and are still taken; a wrong one is somebody else's form.
    const token = field(req, 'csrf');
    if (token !== '' && token !== cookie(req, 'csrf')) return send(req, res, 'Not ordered', '<p>This form is out of date.</p>', 403);
    const wish = {
      userId: user.id,
      items: [{ productId: Number(field(req, 'productId')), quantity: Number(field(req, 'quantity') || '1') }],
    };
    const ref = field(req, 'ref').slice(0, 255);
    try {
      const { order, repeated } = await placeOrder(db, readOrderRequest(wish), ref === '' ? null : ref);
      if (!repeated) placed(order);
      res.redirect(303, `/orders/${order.id}`);
    } catch (error) {
      const status = statusOf(error);
      if (status >= 500) throw error;
      send(req, res, 'Not ordered', `<p role="alert">${escapeHtml((error as Error).message)}</p>`, status);
    }
  });
  router.get('/orders/:id', async (req, res, next) => {
    if (!/^[1-9]\d{0,14}$/.test(req.params.id)) return next();
    const user = await currentUser(db, req);
    if (!user) return res.redirect(302, `/login?next=/orders/${req.params.id}`);
    const order = await findOrder(db, Number(req.params.id));
    if (order?.userId !== user.id) return next();
    const lines = order.items.map(
      (i) => `<tr><td>${i.productId}</td><td>${i.quantity}</td><td>${money(i.price, order.currency)}</td></tr>`,
    );
    send(
      req,
      res,
      `Order ${order.id}`,
      `${orderTable([order])}<table><tr><th>Article</th><th>Quantity</th><th>Price</th></tr>${lines.join('')}</table>`,
    );
  });
};

/** The server-rendered part: catalogue, login, account, orders. Form fields: login `user`, `password`, `next`; order `productId`, `quantity`, `ref`, `csrf`. */
export const pageRouter = (deps: ApiDeps): Router => {
  const router = express.Router();
  router.use(express.urlencoded({ extended: false, limit: '64kb' }));
  router.get('/', async (req, res) => {
    const rows = (await listProducts(deps.db)).map(
      (p) => `<tr><td>${p.id}</td><td>${escapeHtml(p.name)}</td><td>${money(p.price, p.currency)}</td><td>${p.stock}</td></tr>`,
    );
    send(req, res, 'Catalogue', `<table><tr><th>No</th><th>Article</th><th>Price</th><th>In stock</th></tr>\n${rows.join('\n')}\n</table>`);
  });
  router.get('/old-catalog', (_req, res) => {
    res.redirect(301, '/');
  });
  loginRoutes(router, deps.db);
  orderRoutes(router, deps);
  return router;
};
