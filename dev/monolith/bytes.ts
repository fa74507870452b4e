import type { Request, Response } from 'express';

/** Something with a fixed length to download. `read` gives the bytes `start..end`, both included. */
export type Download = {
  size: number;
  etag: string;
  lastModified: Date;
  type: string;
  read(start: number, end: number): Buffer | Promise<Buffer>;
};

/**
 * Answers 200, 206 (one range), 304 or 416 (RFC 9110, 13.1 and 14). Several ranges at once are answered whole, which section 14.2 allows;
 * so is a range whose `If-Range` names another version.
 */
export const sendBytes = async (req: Request, res: Response, download: Download): Promise<void> => {
  const { size, etag, lastModified, type } = download;
  res.set({ ETag: etag, 'Last-Modified': lastModified.toUTCString(), 'Accept-Ranges': 'bytes', 'Content-Type': type });
  if (req.fresh) {
    res.removeHeader('Content-Type');
    res.status(304).end();
    return;
  }
  const condition = req.headers['if-range'];
  const current = condition === undefined || condition === etag || condition === lastModified.toUTCString();
  const ranges = req.method === 'GET' && current ? req.range(size, { combine: true }) : undefined;
  if (ranges === -1) {
    res
      .status(416)
      .set({ 'Content-Range': `bytes */${size}`, 'Content-Length': '0' })
      .end();
    return;
  }
  const range = Array.isArray(ranges) && ranges.type === 'bytes' && ranges.length === 1 ? ranges[0]! : undefined;
  const { start, end } = range ?? { start: 0, end: size - 1 };
  if (range) res.status(206).set('Content-Range', `bytes ${start}-${end}/${size}`);
  res.set('Content-Length', String(end - start + 1));
  if (req.method === 'HEAD' || size === 0) res.end();
  else res.end(await download.read(start, end));
};
