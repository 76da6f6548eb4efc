/**
 * Copies the files of ONNX Runtime Web that the page loads into ../page/vendor, so that neither the page nor
 * whoever installs the package needs npm or a network. `make web` runs it after `npm ci`.
 *
 * WASM files are stored gzipped, as they are sent. manifest.json holds the SHA-256 of every file as npm
 * delivers it; tests/demos/web/test_files.py compares.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const NAME = 'onnxruntime-web';
const FILES = [
  // WASM on the CPU.
  'ort.wasm.min.mjs',
  'ort-wasm-simd-threaded.mjs',
  'ort-wasm-simd-threaded.wasm',
  // WebGPU. The smaller JSPI build runs in fewer browsers.
  'ort.webgpu.min.mjs',
  'ort-wasm-simd-threaded.asyncify.mjs',
  'ort-wasm-simd-threaded.asyncify.wasm',
];

// Not in npm's package: from the project's repository, by hand.
const LICENCES = ['LICENSE', 'ThirdPartyNotices.txt'];

const from = new URL(`./node_modules/${NAME}/`, import.meta.url);
const to = new URL(`../page/vendor/${NAME}/`, import.meta.url);
const { version } = JSON.parse(readFileSync(new URL('package.json', from), 'utf8'));
const lock = JSON.parse(readFileSync(new URL('package-lock.json', import.meta.url), 'utf8'));
const { integrity } = lock.packages[`node_modules/${NAME}`];

mkdirSync(to, { recursive: true });
const sha256 = {};
const hash = (bytes) => createHash('sha256').update(bytes).digest('hex');
for (const file of FILES) {
  const bytes = readFileSync(new URL(`dist/${file}`, from));
  sha256[file] = hash(bytes);
  const wasm = file.endsWith('.wasm');
  writeFileSync(new URL(wasm ? `${file}.gz` : file, to), wasm ? gzipSync(bytes, { level: 9 }) : bytes);
}
const licences = Object.fromEntries(LICENCES.map((file) => [file, hash(readFileSync(new URL(file, to)))]));
const manifest = { package: NAME, version, integrity, sha256, licences };
writeFileSync(new URL('manifest.json', to), `${JSON.stringify(manifest, null, 2)}\n`);
console.log(`${NAME} ${version}: ${FILES.length} files in ${to.pathname}`);
