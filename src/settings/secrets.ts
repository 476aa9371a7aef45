/**
 * Secrets are cut out of every text that leaves the process: log lines, errors on a terminal, and the errors that
 * graphile-worker stores in `last_error`. Nobody has to remember which message might hold one.
 */
import { secretSettings } from './settings.ts';

const HIDDEN = '[hidden]';

/** Asked once: every line of the log comes through here. */
let names: readonly string[] | undefined;

function secretsOf(env: NodeJS.ProcessEnv): string[] {
  names ??= secretSettings();
  const secrets = names.map((name) => env[name]?.trim() ?? '');
  secrets.push(...passwordsIn(env.DATABASE_URL ?? ''));
  // A secret of three letters would blank ordinary words out of every line.
  return secrets.filter((secret) => secret.length > 3).flatMap(forms);
}

/** The password of a connection string, as it stands and decoded; also of one that is no URL because of its password. */
function passwordsIn(connectionString: string): string[] {
  const unencoded = /^\w+:\/\/[^:/?#]*:(.*)@/s.exec(connectionString)?.[1] ?? '';
  const encoded = URL.parse(connectionString)?.password ?? '';
  try {
    return [unencoded, encoded, decodeURIComponent(encoded)];
  } catch {
    return [unencoded, encoded]; // a percent sign that encodes nothing
  }
}

const inJson = (text: string) => JSON.stringify(text).slice(1, -1);

/** A secret as it stands, in URLs, in JSON, and in JSON that is quoted in JSON. */
function forms(secret: string): string[] {
  const inUrls = [encodeURIComponent(secret), encodeURI(secret), `${new URLSearchParams([['', secret]])}`.slice(1)];
  const inLowerCase = inUrls.map((text) => text.replace(/%../g, (code) => code.toLowerCase()));
  return [secret, ...inUrls, ...inLowerCase, inJson(secret), inJson(inJson(secret))];
}

/** The text without the secrets of the environment, passwords in URLs and keys in query strings. */
export function hideSecrets(text: string, env: NodeJS.ProcessEnv = process.env): string {
  let hidden = text;
  for (const secret of secretsOf(env)) hidden = hidden.replaceAll(secret, HIDDEN);
  return hidden
    .replace(/(:\/\/[^\s:/@]*:)(?!password@|…@)[^\s@]+@/g, `$1${HIDDEN}@`) // but for what shows how an address looks
    .replace(/([?&](?:key|api_key|token|password)=)[^&\s"']+/gi, `$1${HIDDEN}`);
}
