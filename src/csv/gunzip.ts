/** Decompression of a .csv.gz, bounded: a small file can unpack to anything. */
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { RefusedFileError } from './refused.ts';

/** Three million tickets; a file of as many bytes that is not compressed is read all the same. */
const MAX_UNPACKED_BYTES = 1024 ** 3;

/** The bytes of a CSV by that name, unpacked where the name ends in .gz. */
export const csvBytes = (name: string, bytes: AsyncIterable<Buffer>): AsyncIterable<Buffer> =>
  /\.gz$/i.test(name) ? gunzipped(bytes) : bytes;

/**
 * The bytes of a file whose name says that it is compressed with gzip, unpacked as they arrive; memory stays flat.
 * A file that is not compressed after all passes as it is.
 * @throws RefusedFileError when the data are damaged or unpack to more than 1 GiB; whatever `bytes` throws
 */
export async function* gunzipped(
  bytes: AsyncIterable<Buffer>,
  maxBytes: number = MAX_UNPACKED_BYTES,
): AsyncGenerator<Buffer> {
  const source = bytes[Symbol.asyncIterator]();
  try {
    let start = Buffer.alloc(0);
    let next = await source.next();
    while (!next.done && start.length < 2) {
      start = Buffer.concat([start, next.value]);
      if (start.length < 2) next = await source.next();
    }
    const whole = readOn(start, source);
    if (start[0] === 0x1f && start[1] === 0x8b) yield* unpacked(whole, maxBytes);
    else yield* whole;
  } finally {
    await source.return?.();
  }
}

async function* readOn(start: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  yield start;
  for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
}

async function* unpacked(bytes: AsyncGenerator<Buffer>, maxBytes: number): AsyncGenerator<Buffer> {
  // pipeline(), because an error of the source would otherwise end nothing.
  const unzip = pipeline(Readable.from(bytes), createGunzip(), () => undefined);
  let size = 0;
  try {
    for await (const buffer of unzip as AsyncIterable<Buffer>) {
      size += buffer.length;
      if (size > maxBytes) {
        throw new RefusedFileError(`It unpacks to more than ${Math.floor(maxBytes / 1024 ** 2)} MiB: it is not read`);
      }
      yield buffer;
    }
  } catch (error) {
    const { code = '', message } = error as { code?: string; message: string };
    if (!/^Z_/.test(code)) throw error;
    throw new RefusedFileError(`Its gzip data are damaged (${message}): upload it again`, { cause: error });
  }
}
