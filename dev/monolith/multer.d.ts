/** The few parts of multer 2 that the shop uses; the package ships no types. */
declare module 'multer' {
  import type { RequestHandler } from 'express';

  type Options = { storage: unknown; limits: { fileSize: number; files: number; fields: number }; defParamCharset: string };
  type Multer = { any(): RequestHandler };
  const multer: ((options: Options) => Multer) & {
    memoryStorage(): unknown;
    MulterError: new (...args: never[]) => Error & { code: string };
  };
  export default multer;
}
