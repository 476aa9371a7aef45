/**
 * The archive: a loaded file moves to processed/ in its own folder. Guarantees: no object is deleted before its copy was
 * seen, and a move that was cut off is completed by the next try.
 * It does not promise atomic deletion: servers that ignore If-Match on DeleteObject leave a window of milliseconds
 * between the last look at an object and its deletion.
 */
import { CopyObjectCommand, DeleteObjectCommand } from '@aws-sdk/client-s3';
import { ARCHIVE_FOLDER } from './files.ts';
import {
  type Bucket,
  BucketError,
  type BucketObject,
  explain,
  head,
  isMissing,
  type ObjectHead,
  statusOf,
} from './s3.ts';

/** Whether a key lies in an archive. */
export const isArchived = (key: string) => `/${key.slice(0, key.lastIndexOf('/') + 1)}`.endsWith(`/${ARCHIVE_FOLDER}`);

/**
 * What tells a version from others of its name: the ETag, or where the server lists none, length and time.
 * Copies carry it: a server may give the copy of a multipart upload another ETag.
 */
const markOf = ({ etag, size, lastModified }: BucketObject) => etag || `${size}-${lastModified.getTime()}`;
const COPIED_FROM = 'copied-from-etag';

const isCopy = (found: ObjectHead | undefined, file: BucketObject) =>
  found !== undefined &&
  ((file.etag !== '' && found.etag === file.etag) || found.metadata?.[COPIED_FROM] === markOf(file));

/** HEAD tells whole seconds where a list may tell less. */
const isVersion = (found: ObjectHead, file: BucketObject) =>
  file.etag !== '' && found.etag !== ''
    ? found.etag === file.etag
    : found.size === file.size && Math.abs(found.lastModified.getTime() - file.lastModified.getTime()) < 1_000;

type Archived =
  | { readonly outcome: 'archived'; readonly key: string }
  /** Another version stands at the key now, or none: nothing was deleted. */
  | { readonly outcome: 'replaced' | 'gone' };

/**
 * Moves a version of a file to `processed/` in its own folder: copy, look at the copy, delete the source last.
 * Idempotent: after a crash between any two steps, calling it again completes the move.
 * A different object of the same name in processed/ is kept; the new one gets its ETag as a suffix. A forced look reads the time
 * in the name there too (files.ts).
 * @throws BucketError
 */
export async function archiveObject(bucket: Bucket, file: BucketObject): Promise<Archived> {
  const { key } = file;
  const folder = key.slice(0, key.lastIndexOf('/') + 1);
  const name = key.slice(folder.length);
  const plain = folder + ARCHIVE_FOLDER + name;
  const suffixed = folder + ARCHIVE_FOLDER + name.replace(/(\.[^.]*)?$/, `-${markOf(file)}$1`);

  const source = await head(bucket, key);
  const taken = await head(bucket, plain);
  const target = taken === undefined || isCopy(taken, file) ? plain : suffixed;
  const copied = isCopy(target === plain ? taken : await head(bucket, suffixed), file);
  if (source === undefined) return copied ? { outcome: 'archived', key: target } : { outcome: 'gone' };
  if (!isVersion(source, file)) return { outcome: 'replaced' };

  // Swift reads a multipart upload under its ETag, but copies and deletes it under another that it never shows.
  const condition = file.etag === '' || file.etag.includes('-') ? undefined : `"${file.etag}"`;
  try {
    if (!copied) {
      await bucket.client.send(
        new CopyObjectCommand({
          Bucket: bucket.name,
          Key: target,
          CopySource: `${bucket.name}/${key.split('/').map(encodeURIComponent).join('/')}`,
          CopySourceIfMatch: condition,
          MetadataDirective: 'REPLACE',
          Metadata: { [COPIED_FROM]: markOf(file) },
          ContentType: source.contentType ?? 'text/csv',
        }),
      );
      const copy = await head(bucket, target);
      // Where only a list tells of the copy, its metadata are not known: then its length must do.
      if (copy?.size !== source.size || (copy.metadata !== undefined && !isCopy(copy, file))) {
        throw new BucketError(`The copy ${target} is not what was copied; ${key} stays where it is`);
      }
    }
    // What was copied is what was asked for only if that still stands there; and some servers delete unconditionally.
    const now = await head(bucket, key);
    if (now !== undefined && !isVersion(now, file)) return { outcome: 'replaced' };
    await bucket.client.send(new DeleteObjectCommand({ Bucket: bucket.name, Key: key, IfMatch: condition }));
  } catch (error) {
    if (statusOf(error) === 412) return { outcome: 'replaced' };
    // Gone meanwhile: another worker finished the same move.
    if (isMissing(error) && (await head(bucket, target))?.size === file.size)
      return { outcome: 'archived', key: target };
    throw explain(bucket, `Archiving ${key}`, error);
  }
  return { outcome: 'archived', key: target };
}
