export const HEAD_END = Buffer.from('\r\n\r\n');

/** What Content-Length of a head says; 0 without one. Enough for peers that we wrote ourselves. */
export const bodyLength = (head: string): number => Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
