import { createHash } from 'node:crypto';
import type { NextFunction, Request, RequestHandler, Response, Router } from 'express';
import express from 'express';
import type { Knex } from 'knex';
import multer from 'multer';
import { sendBytes } from './bytes.ts';
import { escapeHtml, page } from './html.ts';

const MAX_FILE_BYTES = 20 * 1024 * 1024;
/** Files are held in memory while they arrive, so only a few may arrive at once. */
const MAX_AT_ONCE = 8;
const MAX_KEPT = 200;

type Received = Request & { files?: { originalname: string; mimetype: string; size: number; buffer: Buffer }[] };
type Meta = { file_nm: string; mime_cd: string; size: number; sha256: string; modified: string };

const FORM = `<form method="post" action="/upload" enctype="multipart/form-data">
<input type="file" name="file" required> <button>Upload</button></form>`;

/** Refuses with 503 while `MAX_AT_ONCE` uploads are under way. */
const fewAtOnce = (): RequestHandler => {
  let running = 0;
  return (_req, res, next) => {
    if (running >= MAX_AT_ONCE) {
      res.status(503).set('Retry-After', '1').json({ error: 'too many uploads at once' });
      return;
    }
    running += 1;
    res.once('close', () => {
      running -= 1;
    });
    next();
  };
};

const store = async (db: Knex, name: string, type: string, content: Buffer): Promise<string> => {
  const [row] = await db('shop.t_upload').insert({ file_nm: name, mime_cd: type, content }).returning<{ upl_id: string }[]>('upl_id');
  const id = row!.upl_id;
  await db.raw('delete from shop.t_upload where upl_id <= ?::bigint - ?', [id, MAX_KEPT]);
  return id;
};

const receive = async (db: Knex, req: Received, res: Response): Promise<void> => {
  const file = req.files?.[0];
  if (!file) {
    res.status(400).json({ error: 'expected a multipart/form-data body with one file' });
    return;
  }
  const name = file.originalname.replaceAll('\0', '').slice(0, 255) || 'unnamed';
  const type = /^[\w.+-]+\/[\w.+-]+$/.test(file.mimetype) ? file.mimetype : 'application/octet-stream';
  const id = await store(db, name, type, file.buffer);
  const sha256 = createHash('sha256').update(file.buffer).digest('hex');
  const url = `/uploads/${id}`;
  res.status(201).location(url).vary('Accept');
  if (req.accepts(['json', 'html']) === 'html')
    res.send(
      page(
        'Uploaded',
        `<p><a href="${url}">${escapeHtml(name)}</a>, ${file.size} bytes, sha256 <code id="sha256">${sha256}</code></p>${FORM}`,
      ),
    );
  else res.json({ id: Number(id), name, type, size: file.size, sha256, url });
};

const answerUploadError = (error: unknown, _req: Request, res: Response, next: NextFunction): void => {
  if (error instanceof multer.MulterError) {
    const large = error.code === 'LIMIT_FILE_SIZE';
    res.status(large ? 413 : 400).json({ error: large ? `a file may have at most ${MAX_FILE_BYTES} bytes` : error.message });
  } else if (error instanceof Error && /^(Multipart|Malformed|Unexpected end of form)/.test(error.message))
    res.status(400).json({ error: error.message });
  else next(error);
};

/** `/upload` (form and target, <= 20 MB in one file part of any name) and `/uploads/:id` (with Range and ETag). Keeps the newest 200 files. */
export const uploadRouter = (db: Knex): Router => {
  const router = express.Router();
  const parse = multer({
    storage: multer.memoryStorage(),
    limits: { fileSize: MAX_FILE_BYTES, files: 1, fields: 10 },
    defParamCharset: 'utf8',
  }).any();

  router.get('/upload', (_req, res) => {
    res.send(page('Upload', FORM));
  });
  router.post('/upload', fewAtOnce(), parse, (req: Received, res: Response) => receive(db, req, res), answerUploadError);

  router.get('/uploads/:id', async (req, res, next) => {
    if (!/^[1-9]\d{0,15}$/.test(req.params.id)) return next();
    const { id } = req.params;
    const { rows } = await db.raw<{ rows: Meta[] }>(
      `select file_nm, mime_cd, octet_length(content) as size, encode(sha256(content), 'hex') as sha256,
         to_char(crt_ts at time zone 'Europe/Berlin' at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as modified
       from shop.t_upload where upl_id = ?`,
      [id],
    );
    const meta = rows[0];
    if (!meta) return next();
    // Strangers' files: never shown in the shop's own origin.
    res.attachment(meta.file_nm).set({ 'X-Content-Type-Options': 'nosniff', 'Cache-Control': 'no-cache' });
    await sendBytes(req, res, {
      size: meta.size,
      etag: `"${meta.sha256}"`,
      lastModified: new Date(meta.modified),
      type: meta.mime_cd,
      read: async (start, end) => {
        const part = await db.raw<{ rows: { bytes: Buffer }[] }>(
          'select substring(content from ? for ?) as bytes from shop.t_upload where upl_id = ?',
          [start + 1, end - start + 1, id],
        );
        const bytes = part.rows[0]?.bytes;
        if (!bytes) throw new Error(`upload ${id} was removed while it was read`);
        return bytes;
      },
    });
  });
  return router;
};
