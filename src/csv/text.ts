/** Text of a file: UTF-8 that is repaired where it is none, and names without what nobody sees. */
import { isUtf8 } from 'node:buffer';

/**
 * The same text in valid UTF-8 without NUL: every NUL and every invalid byte sequence becomes U+FFFD.
 * @returns the very buffer when there is nothing to repair, as nearly always
 */
export function repaired(bytes: Buffer): Buffer {
  return isClean(bytes) ? bytes : Buffer.concat([...repairedParts(bytes)]);
}

/** How many bytes the repaired text has, found without making it. */
export function repairedLength(bytes: Buffer): number {
  if (isClean(bytes)) return bytes.length;
  let length = 0;
  for (const part of repairedParts(bytes)) length += part.length;
  return length;
}

const isClean = (bytes: Buffer) => isUtf8(bytes) && !bytes.includes(0);

const PART_BYTES = 64 * 1024;

/** In parts, because a text of megabytes would be there several times. */
function* repairedParts(bytes: Buffer): Generator<Buffer> {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for (let from = 0; from < bytes.length; from += PART_BYTES) {
    const isLast = from + PART_BYTES >= bytes.length;
    const text = decoder.decode(bytes.subarray(from, from + PART_BYTES), { stream: !isLast });
    // Runs at once: one by one, a field of nothing else would take seconds.
    yield Buffer.from(text.replace(/\0+/g, (nuls) => '\uFFFD'.repeat(nuls.length)));
  }
}

/** Format characters (zero-width, soft hyphen, direction marks, byte-order mark) and controls that are no blank. */
const INVISIBLE = /[\p{Cf}\p{Default_Ignorable_Code_Point}]|(?!\s)\p{Cc}/gu;

/** An id or a name as people read it: in NFC, without invisible characters, without blanks around it. */
export function visible(text: string): string {
  if (/^[\x21-\x7e]*$/.test(text)) return text;
  return text.replace(INVISIBLE, '').normalize('NFC').trim();
}

/** A text that any terminal shows as it stands: controls, line ends, and what is invisible, are escaped. */
export const escapedText = (text: string) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => {
    const short = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }[char];
    const code = char.codePointAt(0) ?? 0;
    return short ?? (code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`);
  });
