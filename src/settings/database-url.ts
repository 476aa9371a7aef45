/**
 * DATABASE_URL: one host, over TCP. What it may not hold is told in precise words, never with a part of it, which could be
 * the password's; and `sslmode` means what it means to libpq, which node-postgres reads otherwise.
 */

const MUST_LOOK_LIKE = 'it must look like postgres://user:password@host:5432/database';
const ENCODE = 'write %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %';

const SSL_MODES = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full', 'no-verify'];

/** Why this cannot be the database's address; undefined: it can. */
export function refusalOfUrl(text: string): string | undefined {
  const [, authority, rest = ''] = /^postgres(?:ql)?:\/\/([^/?#]*)(.*)$/s.exec(text) ?? [];
  if (authority === undefined) return `is no address of Postgres: ${MUST_LOOK_LIKE}`;
  const at = authority.lastIndexOf('@');
  // A special character ends the authority early: what follows holds its @, or a fragment, which has no meaning here.
  const [path = '', query = ''] = rest.split('?', 2);
  if (rest.includes('#') || path.includes('@') || (at < 0 && rest.includes('@')) || /^[^=]*@/.test(query))
    return `holds a special character in the user or password that is not percent-encoded: ${ENCODE}`;
  if (/%(?![0-9a-f]{2})/i.test(authority)) return `holds a % that encodes nothing: ${ENCODE}`;
  const host = new URLSearchParams(query).get('host') ?? authority.slice(at + 1);
  if (host.includes(','))
    return 'names several hosts, and only one is supported: name the one that takes writes, or what stands in front of them';
  if (/^(\/|%2f)/i.test(host)) return 'names a Unix socket, and only TCP is supported: name a host, e.g. localhost';
  if (host === '' || host.startsWith(':')) return `names no host: ${MUST_LOOK_LIKE}`;
  const url = URL.parse(text);
  if (!url) return `is no URL: ${MUST_LOOK_LIKE}`;
  const mode = url.searchParams.get('sslmode');
  if (mode !== null && !SSL_MODES.includes(mode))
    return `holds an sslmode that is not supported: choose one of ${SSL_MODES.join(', ')}`;
  if (mode === 'verify-ca' && !url.searchParams.get('sslrootcert'))
    return 'holds sslmode=verify-ca, which needs sslrootcert, the file with the certificate of your CA';
  return undefined;
}

/** The same address for node-postgres: `require` encrypts and checks no certificate, unless sslrootcert names a CA. */
export function asLibpq(text: string): string {
  const url = new URL(text);
  if (!url.searchParams.has('sslmode')) return text;
  url.searchParams.set('uselibpqcompat', 'true');
  if (url.searchParams.get('sslmode') === 'no-verify') url.searchParams.set('sslmode', 'require');
  // Node trusts the system's CAs by itself.
  if (url.searchParams.get('sslrootcert') === 'system') url.searchParams.delete('sslrootcert');
  return url.href;
}
