/**
 * The bucket: listing a folder, and reading one object. S3 over HTTP, path-style, so that RustFS, Swift, MinIO and AWS
 * all do. Guarantee: a read gives exactly the bytes of the listed version or an error.
 */

import { createHash } from 'node:crypto';
import {
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import '../settings/handshake.ts';
import { ExpectedError, isUntrusted } from '../settings/errors.ts';
import type { BucketSettings } from '../settings/settings.ts';

export interface BucketObject {
  readonly key: string;
  /** Without quotes; `-N` at its end marks a multipart upload, whose ETag is no MD5. */
  readonly etag: string;
  /** Bytes. */
  readonly size: number;
  readonly lastModified: Date;
}

export interface Bucket {
  readonly client: S3Client;
  readonly name: string;
  readonly endpoint: string;
}

/** The bucket cannot be used, and why, in words for the operator. Trying again may help. */
export class BucketError extends ExpectedError {
  override name = 'BucketError';
}

/** The object is no longer the version that was listed: look again. */
export class ObjectChangedError extends BucketError {
  override name = 'ObjectChangedError';
}

const CONNECT_TIMEOUT_MS = 5_000;
/** Silence on the connection after which a transfer is given up. */
const IDLE_TIMEOUT_MS = 60_000;
/** More breaks S3 servers; it is also AWS's own maximum. */
const LIST_PAGE = 1_000;

/** Opens no connection yet. */
export function openBucket(settings: BucketSettings): Bucket {
  const client = new S3Client({
    endpoint: settings.RUSTFS_ENDPOINT,
    region: settings.RUSTFS_REGION,
    credentials: { accessKeyId: settings.RUSTFS_ACCESS_KEY, secretAccessKey: settings.RUSTFS_SECRET_KEY },
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: 4,
    requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: IDLE_TIMEOUT_MS },
  });
  return { client, name: settings.RUSTFS_BUCKET, endpoint: settings.RUSTFS_ENDPOINT };
}

const REMEDIES: Record<string, string> = {
  NoSuchBucket: 'there is no such bucket: check RUSTFS_BUCKET',
  SignatureDoesNotMatch:
    'the signature was refused: check RUSTFS_SECRET_KEY (behind a proxy, use the internal endpoint)',
  InvalidAccessKeyId: 'the access key is unknown: check RUSTFS_ACCESS_KEY',
  AccessDenied: 'access denied: the key needs list, read, write and delete under the prefix',
  RequestTimeTooSkewed: 'the clocks of this machine and of the server differ by too much: set them right',
  AuthorizationHeaderMalformed: 'the region is wrong: check RUSTFS_REGION',
  InvalidBucketName: 'it is no name of a bucket: check RUSTFS_BUCKET',
  ExpiredToken: 'the key has expired: set RUSTFS_ACCESS_KEY and RUSTFS_SECRET_KEY anew',
  PermanentRedirect: 'the bucket is at another endpoint or in another region: check RUSTFS_ENDPOINT and RUSTFS_REGION',
  InvalidObjectState: 'the file lies in cold storage: restore it, and keep this folder out of what moves files there',
  SlowDown: 'the server asks for fewer requests: what was tried is tried again later',
  XMinioStorageFull: 'the disk of the server is full: make room on it',
  TimeoutError: 'it does not answer: check RUSTFS_ENDPOINT, the network, and that the server runs',
  ECONNREFUSED: 'nothing listens there: check RUSTFS_ENDPOINT, and that the server runs',
  ENOTFOUND: 'the host name is unknown: check RUSTFS_ENDPOINT',
  EPROTO: 'it does not speak TLS there: check whether RUSTFS_ENDPOINT must begin with http://',
  CERT_HAS_EXPIRED: 'its certificate has expired: renew it',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is one of another host name: check RUSTFS_ENDPOINT',
};

const UNTRUSTED =
  'its certificate is signed by nobody whom this machine trusts: name the file with the certificate of its CA in ' +
  'NODE_EXTRA_CA_CERTS, or use http:// within a private network';
const NO_S3 =
  'what answers is no S3 server: check RUSTFS_ENDPOINT (the port of the API, not of the console, and no proxy that asks for a login)';

/** An error of the SDK in words for the operator: which bucket, what was tried, what to do. */
export function explain(bucket: Bucket, doing: string, error: unknown): BucketError {
  if (error instanceof BucketError) return error;
  const { name = 'Error', code, message = String(error) } = error as { name?: string; code?: string; message?: string };
  const status = error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined;
  const remedy =
    REMEDIES[code ?? ''] ?? REMEDIES[name] ?? (isUntrusted(code) ? UNTRUSTED : whyUnnamed(name, message, status));
  const detail = remedy ?? `${code ?? name}${status ? ` (HTTP ${status})` : ''}: ${message}`;
  return new BucketError(`${doing} in bucket ${bucket.name} at ${bucket.endpoint}: ${detail}`, { cause: error });
}

/** A refusal without S3's name for it, as a HEAD has none, or what is no S3 server. */
function whyUnnamed(name: string, message: string, status: number | undefined): string | undefined {
  if (/Deserialization error/.test(message)) return NO_S3; // of the SDK: an answer that is not the XML it should be
  if (!['Unknown', 'UnknownError', '403', 'Forbidden', 'NotFound'].includes(name) || status === undefined)
    return undefined;
  if (status === 403) return REMEDIES.AccessDenied;
  if (status >= 500) return `HTTP ${status}: the server, or a proxy before it, is in trouble`;
  return `HTTP ${status}: ${NO_S3}`;
}

export function statusOf(error: unknown): number | undefined {
  return error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined;
}

export const isMissing = (error: unknown) =>
  statusOf(error) === 404 && !(error instanceof S3ServiceException && error.name === 'NoSuchBucket');

const unquote = (etag: string | undefined) => (etag ?? '').replace(/^W\//, '').replaceAll('"', '');

/**
 * The objects directly in a folder (not in folders below it), all pages, in no promised order.
 * @throws BucketError also when the server says «truncated» and gives no new token: a partial list would be a lie
 */
export async function listFolder(bucket: Bucket, folder: string, signal?: AbortSignal): Promise<BucketObject[]> {
  // By key: some servers list a key twice.
  const objects = new Map<string, BucketObject>();
  const tokens = new Set<string>();
  let token: string | undefined;
  do {
    const page = await bucket.client
      .send(
        new ListObjectsV2Command({
          Bucket: bucket.name,
          Prefix: folder,
          Delimiter: '/',
          MaxKeys: LIST_PAGE,
          ContinuationToken: token,
          EncodingType: 'url', // XML has no form for some characters of keys: one such key would spoil the list
        }),
        abort(signal),
      )
      .catch((error: unknown) => {
        throw explain(bucket, `Listing ${folder || 'the root'}`, error);
      });
    // A page of HTML with status 200 would pass for a folder of nothing.
    if (page.Name === undefined && page.IsTruncated === undefined)
      throw new BucketError(`Listing ${folder || 'the root'} in bucket ${bucket.name} at ${bucket.endpoint}: ${NO_S3}`);
    for (const { Key = '', ETag, Size, LastModified } of page.Contents ?? []) {
      const key = page.EncodingType === 'url' ? decoded(Key) : Key;
      if (key === '' || key.endsWith('/')) continue; // a folder's own marker
      if (LastModified === undefined || !(Size !== undefined && Size >= 0))
        throw new BucketError(
          `Listing ${folder} in bucket ${bucket.name}: the server lists ${key} without its time or its size; nothing was taken from this list`,
        );
      objects.set(key, { key, etag: unquote(ETag), size: Size, lastModified: LastModified });
    }
    token = page.IsTruncated ? page.NextContinuationToken : undefined;
    if (page.IsTruncated && (token === undefined || tokens.has(token))) {
      throw new BucketError(
        `Listing ${folder} in bucket ${bucket.name}: the server says there is more but ${token === undefined ? 'gives no' : 'repeats its'} continuation token; nothing was taken from this incomplete list`,
      );
    }
    if (token !== undefined) tokens.add(token);
  } while (token !== undefined);
  return [...objects.values()];
}

/** A key from a list that is encoded as a form's fields are. */
function decoded(key: string): string {
  try {
    return decodeURIComponent(key.replaceAll('+', ' '));
  } catch {
    return key; // no UTF-8: it cannot be asked for
  }
}

/**
 * The bytes of exactly the listed version, as they arrive.
 * After the last chunk the length, and the MD5 where the ETag is one, have been checked.
 * @throws ObjectChangedError when the object is gone or was replaced; BucketError for everything else
 */
export async function* readObject(bucket: Bucket, object: BucketObject, signal?: AbortSignal): AsyncGenerator<Buffer> {
  try {
    const response = await bucket.client.send(
      new GetObjectCommand({
        Bucket: bucket.name,
        Key: object.key,
        ...(object.etag && { IfMatch: `"${object.etag}"` }),
      }),
      abort(signal),
    );
    // What KMS encrypts has an ETag that looks like an MD5 and is none.
    const isMd5 = /^[0-9a-f]{32}$/.test(object.etag) && !response.ServerSideEncryption?.startsWith('aws:kms');
    const md5 = isMd5 ? createHash('md5') : undefined;
    let size = 0;
    for await (const chunk of response.Body as unknown as AsyncIterable<Buffer>) {
      size += chunk.length;
      md5?.update(chunk);
      yield chunk;
    }
    if (size !== object.size) throw new BucketError(`${object.key}: ${size} of ${object.size} bytes arrived`);
    if (md5 && md5.digest('hex') !== object.etag) {
      throw new BucketError(`${object.key}: the bytes that arrived do not have the MD5 ${object.etag}`);
    }
  } catch (error) {
    if (isMissing(error)) throw new ObjectChangedError(`${object.key} is gone from the bucket`, { cause: error });
    if (statusOf(error) === 412) {
      throw new ObjectChangedError(`${object.key} was replaced after it was listed`, { cause: error });
    }
    throw explain(bucket, `Reading ${object.key}`, error);
  }
}

/** What the server tells of one object. */
export interface ObjectHead {
  /** Without quotes; empty where the server gives none. */
  readonly etag: string;
  /** Bytes. */
  readonly size: number;
  readonly lastModified: Date;
  readonly contentType: string | undefined;
  /** undefined where the server told no metadata, because only a list was to be had. */
  readonly metadata: Record<string, string> | undefined;
}

/** @returns undefined where there is no such object @throws BucketError */
export async function head(bucket: Bucket, key: string): Promise<ObjectHead | undefined> {
  try {
    const found = await bucket.client.send(new HeadObjectCommand({ Bucket: bucket.name, Key: key }));
    return {
      etag: unquote(found.ETag),
      size: found.ContentLength ?? 0,
      lastModified: found.LastModified ?? new Date(0),
      contentType: found.ContentType,
      metadata: found.Metadata ?? {},
    };
  } catch (error) {
    if (isMissing(error)) return undefined;
    // Some servers answer 403 for a key that does not exist. A list tells which it is.
    if (statusOf(error) === 403) {
      const listed = await listFolder(bucket, key).catch(() => undefined); // then the 403 is what there is to say
      const same = listed?.find((object) => object.key === key);
      if (listed) return same && { ...same, contentType: undefined, metadata: undefined };
    }
    throw explain(bucket, `Looking at ${key}`, error);
  }
}

const abort = (signal: AbortSignal | undefined) => (signal ? { abortSignal: signal } : {});
