/**
 * Text that is safe to show: whatever stands in a file name, a cell or a provider's answer, it can neither steer the
 * terminal nor turn the text beside it around. Control, format and bidi characters are shown as JavaScript writes them
 * (\u001b, \u202e), so inside JSON they still mean the same.
 */

/** All of categories control, format and line separator, and half surrogates; tabs and line ends are ours to use. */
const UNSAFE = /(?![\t\n])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

const escapeUnits = (text: string) =>
  text
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');

/** Escapes everything but tabs and line ends. Twice is as good as once. */
export const printable = (text: string): string => text.replace(UNSAFE, escapeUnits);

/** The same on one line, for a value that somebody else wrote: a line end in it must not begin a line of ours. */
export const printableLine = (text: string): string => printable(text).replaceAll('\n', '\\n').replaceAll('\t', '\\t');
