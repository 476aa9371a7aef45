/** Rejects: records that cannot be loaded, kept with their line, the reason and their text, up to a limit. */
import { escapedText } from './text.ts';

export interface Reject {
  /** Line of the file on which the record begins, from 1. */
  readonly line: number;
  readonly reason: string;
  /** The record as it stands in the file, control characters escaped, cut at 64 KiB. */
  readonly text: string;
}

/** Of one snapshot; further ones are only counted. A file of nothing but rejects would fill the database. */
export const MAX_REJECTS_KEPT = 10_000;
export const MAX_TEXT_BYTES = 64 * 1024;

/** @param record its bytes, in valid UTF-8 */
export const rejectText = (record: Buffer) => cut(Buffer.from(escapedText(cut(record))));

/** Cut between characters, not inside one. */
function cut(utf8: Buffer): string {
  return utf8.length <= MAX_TEXT_BYTES
    ? utf8.toString()
    : new TextDecoder().decode(utf8.subarray(0, MAX_TEXT_BYTES), { stream: true });
}
