import WebSocket from 'ws';

/** Opens WebSockets to the address it is given and keeps them: takes commands over its channel and says how many there are. */
export type ClientCommand = { readonly do: 'open' | 'echo' | 'close'; readonly count: number };
/** `count` = WebSockets that stand now, or of which the echo came back right. */
export type ClientAnswer = { readonly done: ClientCommand['do']; readonly count: number; readonly failed: string | null };

/** Handshakes under way at once. */
const AT_ONCE = 64;
const ECHO_MS = 60_000;

const [url = ''] = process.argv.slice(2);
const sockets = new Set<WebSocket>();
let failed: string | null = null;

const openOne = (): Promise<void> =>
  new Promise((resolve) => {
    const socket = new WebSocket(url, { perMessageDeflate: false, rejectUnauthorized: false });
    socket.once('open', () => {
      sockets.add(socket);
      resolve();
    });
    socket.on('error', (error) => {
      failed ??= error.message;
      resolve();
    });
    socket.on('close', () => sockets.delete(socket));
  });

const echoOne = (socket: WebSocket, index: number): Promise<boolean> =>
  new Promise((resolve) => {
    const text = `hello ${index}`;
    const timer = setTimeout(() => resolve(false), ECHO_MS);
    socket.once('message', (data) => {
      clearTimeout(timer);
      resolve(String(data) === text);
    });
    socket.send(text);
  });

const open = async (count: number): Promise<number> => {
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await openOne();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return sockets.size;
};

const echo = async (): Promise<number> => (await Promise.all([...sockets].map(echoOne))).filter(Boolean).length;

const close = async (): Promise<number> => {
  await Promise.all(
    [...sockets].map(
      (socket) =>
        new Promise<void>((resolve) => {
          socket.once('close', () => resolve());
          socket.close(1000);
        }),
    ),
  );
  return sockets.size;
};

process.on('message', (command: ClientCommand) => {
  const work = { open, echo, close }[command.do];
  void work(command.count).then((count) => process.send?.({ done: command.do, count, failed } satisfies ClientAnswer));
});
// nothing else keeps it alive before the first command
const alive = setInterval(() => undefined, 60_000);
process.once('SIGTERM', () => {
  clearInterval(alive);
  process.exit(0);
});
process.send?.({ type: 'ready' });
