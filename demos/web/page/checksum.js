/**
 * The checksum of an input contract, as edge_deeplab/spec.py makes it: SHA-256 of the record without its checksum,
 * written by Python's `json.dumps(record, sort_keys=True)`.
 *
 * Browsers have a SHA-256 of their own, but not on a page that comes over http from another computer.
 */

/** @param {string} text A record that is known to be JSON. */
export function checksumOf(text) {
  return sha256(new TextEncoder().encode(canonical(text)));
}

/**
 * Keys sorted, one space behind commas and colons, ASCII only. Numbers stay as they are written: JavaScript knows no
 * difference between 128 and 128.0, the checksum does.
 * @param {string} text
 */
function canonical(text) {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g) ?? [];
  let at = 0;
  /** @param {string} [without] A key to leave out. @returns {string} */
  function value(without) {
    const token = tokens[at++];
    if (token.startsWith('"')) return quoted(JSON.parse(token));
    if (token !== '{' && token !== '[') return token;
    const end = token === '{' ? '}' : ']';
    /** @type {[string, string][]} Keys and values; the keys of a list are all ''. */
    const entries = [];
    while (tokens[at] !== end) {
      const key = token === '{' ? JSON.parse(tokens[at]) : '';
      if (token === '{') at += 2;
      const entry = value();
      if (key !== without) entries.push([key, entry]);
      if (tokens[at] === ',') at++;
    }
    at++;
    if (token === '[') return `[${entries.map(([, entry]) => entry).join(', ')}]`;
    entries.sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, entry]) => `${quoted(key)}: ${entry}`).join(', ')}}`;
  }
  return value('sha256');
}

/** @param {string} text */
function quoted(text) {
  return JSON.stringify(text).replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/**
 * FIPS 180-4.
 * @param {Uint8Array} bytes
 * @returns {string} Hexadecimal.
 */
function sha256(bytes) {
  const padded = new DataView(new ArrayBuffer(64 * Math.ceil((bytes.length + 9) / 64)));
  new Uint8Array(padded.buffer).set(bytes);
  padded.setUint8(bytes.length, 0x80);
  padded.setUint32(padded.byteLength - 4, 8 * bytes.length); // a contract has less than 2^29 bytes
  const hash = Uint32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
  const words = new Uint32Array(64);
  const turn = (/** @type {number} */ x, /** @type {number} */ by) => (x >>> by) | (x << (32 - by));
  for (let block = 0; block < padded.byteLength; block += 64) {
    for (let i = 0; i < 64; i++) {
      if (i < 16) {
        words[i] = padded.getUint32(block + 4 * i);
        continue;
      }
      const [early, late] = [words[i - 15], words[i - 2]];
      const s0 = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
      const s1 = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
      words[i] = words[i - 16] + s0 + words[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
      const choice = (e & f) ^ (~e & g);
      const majority = (a & b) ^ (a & c) ^ (b & c);
      const t1 = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + choice + ROUNDS[i] + words[i];
      const t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + majority;
      [a, b, c, d, e, f, g, h] = [(t1 + t2) | 0, a, b, c, (d + t1) | 0, e, f, g];
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (hash[i] += value));
  }
  return Array.from(hash, (word) => word.toString(16).padStart(8, '0')).join('');
}

/** The first 64 primes. */
const PRIMES = Array.from({ length: 310 }, (_, i) => i + 2).filter((n) => {
  for (let k = 2; k * k <= n; k++) if (n % k === 0) return false;
  return true;
});

const ROUNDS = Uint32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));

/**
 * The first 32 bits behind the point.
 * @param {number} value
 */
function fraction(value) {
  return Math.floor((value - Math.floor(value)) * 2 ** 32);
}
