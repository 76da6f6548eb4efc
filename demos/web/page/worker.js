/**
 * Runs a model in this worker, so that the page stays responsive: frame in, matte out.
 *
 * Messages in:  {type: 'open', url, headers, backend, threads}; then {type: 'restart', smooth, refine} before the
 *               first frame of a stream, and {type: 'frame', id, bitmap, at}, one at a time.
 * Messages out: {type: 'opened', contract}, {type: 'answer', id, matte, times} or {type: 'failed', id, message}.
 */
import { contractOf } from './contract.js';
import { UserError, wordsOf } from './errors.js';
import { foregroundLogits, preprocess } from './imaging.js';
import { Matte, gridFor } from './matte.js';
import { smallLuma } from './resample.js';

/** @typedef {import('./contract.js').Contract} Contract */
/** @typedef {typeof import('onnxruntime-common')} Ort */

/**
 * ONNX Runtime Web comes in builds; the one with WebGPU is nearly twice as large, so it is loaded on demand.
 * @type {Record<string, {module: string, wasm: string}>}
 */
const BUILDS = {
  wasm: { module: 'ort.wasm.min.mjs', wasm: 'ort-wasm-simd-threaded' },
  webgpu: { module: 'ort.webgpu.min.mjs', wasm: 'ort-wasm-simd-threaded.asyncify' },
};
const FOLDER = new URL('./vendor/onnxruntime-web/', import.meta.url).href;

/**
 * The smallest module with a SIMD instruction: () => v128, `i8x16.splat(0)`. ONNX Runtime Web has no build without.
 */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, // magic, version
  1, 5, 1, 96, 0, 1, 123, // a type: no parameters, a v128
  3, 2, 1, 0, // a function of it
  10, 8, 1, 6, 0, 65, 0, 253, 15, 11, // i32.const 0, i8x16.splat, end
]);

class Model {
  /**
   * @param {Ort} ort
   * @param {import('onnxruntime-common').InferenceSession} session
   * @param {Contract} contract
   */
  constructor(ort, session, contract) {
    this.ort = ort;
    this.session = session;
    this.contract = contract;
    this.canvas = new OffscreenCanvas(1, 1);
    const context = this.canvas.getContext('2d', { alpha: false, willReadFrequently: true });
    if (!context) throw new UserError('This browser has no 2D canvas for workers. Update the browser.');
    this.context = context;
    this.matte = new Matte({ smooth: true, refine: true });
    this.last = 0;
  }

  /** @param {{url: string, headers: Record<string, string>, backend: string, threads: number}} options */
  static async open({ url, headers, backend, threads }) {
    const bytes = await download(url, headers);
    const contract = contractOf(bytes);
    if (typeof WebAssembly === 'undefined' || !WebAssembly.validate(SIMD)) {
      throw new UserError(
        'This browser does not run WebAssembly with SIMD, which the model needs. Update the browser, allow it (a ' +
          'lockdown mode turns it off), or start the demo with --server-runtime.',
      );
    }
    const build = BUILDS[backend];
    /** @type {Ort} */
    const ort = await import(FOLDER + build.module);
    ort.env.logLevel = 'error';
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = { mjs: `${FOLDER}${build.wasm}.mjs`, wasm: `${FOLDER}${build.wasm}.wasm` };
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: [backend],
      graphOptimizationLevel: 'all',
      logSeverityLevel: 3,
    });
    const model = new Model(ort, session, contract);
    await model.warmUp();
    return model;
  }

  /** The first run allocates memory, and compiles shaders on WebGPU: not on a frame that is waited for. */
  async warmUp() {
    const { width, height } = this.contract;
    await this.run(preprocess(new Uint8Array(width * height * 4), width, height, this.contract));
  }

  /** @param {{data: Float32Array | Uint8Array, dims: number[]}} input */
  async run({ data, dims }) {
    const { session, contract } = this;
    const tensor = new this.ort.Tensor(contract.dtype, /** @type {any} */ (data), dims);
    const output = (await session.run({ [session.inputNames[0]]: tensor }))[session.outputNames[0]];
    if (output.type !== 'float32' && output.type !== 'uint8') {
      throw new UserError(`The model answers in ${output.type}; this page reads float32 and uint8.`);
    }
    return /** @type {Float32Array | Uint8Array} */ (output.data);
  }

  /**
   * @param {ImageBitmap} bitmap
   * @param {number} at When it was taken, in milliseconds.
   */
  async segment(bitmap, at) {
    const frame = { width: bitmap.width, height: bitmap.height };
    const grid = gridFor(frame.width, frame.height);
    const begin = performance.now();
    const pixels = this.pixels(bitmap);
    const input = preprocess(pixels, frame.width, frame.height, this.contract);
    const prepared = performance.now();
    const output = await this.run(input);
    const answered = performance.now();
    const logits = foregroundLogits(output, this.contract, frame, grid);
    const matte = this.matte.update(logits, smallLuma(pixels, frame, grid), grid, (at - this.last) / 1000);
    this.last = at;
    const done = performance.now();
    const times = { prepare: prepared - begin, network: answered - prepared, finish: done - answered };
    return { matte, times };
  }

  /** @param {ImageBitmap} bitmap */
  pixels(bitmap) {
    const { width, height } = bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return this.context.getImageData(0, 0, width, height).data;
  }
}

/**
 * @param {string} url
 * @param {Record<string, string>} headers
 */
async function download(url, headers) {
  const response = await fetch(url, { headers });
  if (!response.ok) throw new UserError(`The model could not be loaded: the server answered ${response.status}.`);
  return new Uint8Array(await response.arrayBuffer());
}

/** @type {Model | undefined} */
let model;

self.onmessage = async ({ data }) => {
  try {
    if (data.type === 'open') {
      model = await Model.open(data);
      self.postMessage({ type: 'opened', contract: model.contract });
    } else if (model && data.type === 'restart') {
      model.matte = new Matte(data);
    } else if (model) {
      const { matte, times } = await model.segment(data.bitmap, data.at);
      self.postMessage({ type: 'answer', id: data.id, matte, times }, { transfer: [matte.values.buffer] });
    }
  } catch (error) {
    self.postMessage({ type: 'failed', id: data.id, message: wordsOf(error) });
  }
};
