/**
 * Where frames become mattes: in this browser, or in the Python process that serves the page.
 *
 * `segment(bitmap, at)` closes the bitmap and resolves to its matte; `at` is when it was taken, in milliseconds.
 */
import { parseContract } from './contract.js';
import { UserError } from './errors.js';
import { within } from './sources.js';

/** @typedef {import('./contract.js').Contract} Contract */
/** @typedef {import('./matte.js').Lines} Lines */

/**
 * Milliseconds by stage.
 * @typedef {{prepare: number, network: number, finish: number}} Times
 */

/**
 * Alpha as the compositor takes it: the matte's lines, or a picture of the frame's size with the alpha in red.
 * @typedef {{matte: Lines | ImageBitmap, times: Times}} Answer
 */

/**
 * What to make of the network's answers, see matte.js.
 * @typedef {{smooth: boolean, refine: boolean}} Quality
 */

/** Null: a newer frame took this one's place. @typedef {Promise<Answer | null>} Segmenting */

/**
 * What the page needs of either engine.
 * @typedef {object} Engine
 * @property {Contract} contract
 * @property {string} title What runs the model, in words.
 * @property {number} depth Frames it takes at a time.
 * @property {(quality: Quality) => void} restart Forget the frames before: another stream begins.
 * @property {(bitmap: ImageBitmap, at: number) => Segmenting} segment
 * @property {() => void} close
 * @property {(message: string) => void} onLost Called when the engine dies between two frames.
 */

// More than four threads gain little on a network this small, and phones have few fast cores.
const MOST_THREADS = 4;

/** WASM threads share memory, which browsers allow to isolated pages only. */
export function threadsHere() {
  if (whyOneThread()) return 1;
  return Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1));
}

/** Why WASM cannot have threads here, in words; '' where it can. */
export function whyOneThread() {
  const slower = 'Everything works, but slower.';
  if (!self.crossOriginIsolated) {
    return (
      'WASM runs on one thread: this page did not come with the headers (COOP, COEP) that browsers ask for before ' +
      `they share memory between threads. ${slower}`
    );
  }
  if (typeof SharedArrayBuffer === 'undefined') {
    return `WASM runs on one thread: this browser shares no memory between threads. ${slower}`;
  }
  return '';
}

/** Whether this browser really has a WebGPU device to give. */
export async function hasWebGpu() {
  try {
    const gpu = /** @type {any} */ (navigator).gpu;
    return Boolean(await gpu?.requestAdapter());
  } catch {
    return false;
  }
}

/**
 * Requests and their answers by number; all of them fail when the other side is lost.
 * @template T
 */
class Pending {
  constructor() {
    /** @type {Map<number, {resolve: (value: T) => void, reject: (error: Error) => void}>} */
    this.waiting = new Map();
    this.last = 0;
  }

  /** @param {(id: number) => void} send */
  request(send) {
    const id = ++this.last;
    return new Promise((/** @type {(value: T) => void} */ resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      send(id);
    });
  }

  /** @param {number} id */
  take(id) {
    const entry = this.waiting.get(id);
    this.waiting.delete(id);
    return entry;
  }

  /** @param {Error} error */
  failAll(error) {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

/** The model in this browser: ONNX Runtime Web in a worker. */
export class BrowserEngine {
  /**
   * @param {Worker} worker
   * @param {Contract} contract
   * @param {string} title
   * @param {Pending<Answer>} pending
   */
  constructor(worker, contract, title, pending) {
    this.worker = worker;
    this.contract = contract;
    this.title = title;
    this.pending = pending;
    this.depth = 1;
    /** @type {(message: string) => void} */
    this.onLost = () => {};
  }

  /**
   * @param {{url: string, headers: Record<string, string>, backend: 'wasm' | 'webgpu', threads?: number}} options
   * @returns {Promise<BrowserEngine>}
   */
  static open({ url, headers, backend, threads = threadsHere() }) {
    const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
    const title = backend === 'webgpu' ? 'WebGPU' : `WASM, ${threads} thread${threads > 1 ? 's' : ''}`;
    /** @type {Pending<Answer>} */
    const pending = new Pending();
    return new Promise((resolve, reject) => {
      /** @type {BrowserEngine | undefined} */
      let engine;
      worker.onmessage = ({ data }) => {
        if (data.type === 'opened') {
          engine = new BrowserEngine(worker, data.contract, title, pending);
          resolve(engine);
        } else if (data.type === 'answer') {
          pending.take(data.id)?.resolve({ matte: data.matte, times: data.times });
        } else if (data.id) {
          pending.take(data.id)?.reject(new UserError(data.message));
        } else {
          worker.terminate();
          reject(new UserError(data.message));
        }
      };
      worker.onerror = (event) => {
        const error = new UserError(`The model's worker stopped: ${event.message || 'it could not be loaded'}.`);
        worker.terminate();
        pending.failAll(error);
        reject(error);
        engine?.onLost(error.message);
      };
      worker.postMessage({ type: 'open', url: new URL(url, location.href).href, headers, backend, threads });
    });
  }

  /** @param {Quality} quality */
  restart(quality) {
    this.worker.postMessage({ type: 'restart', ...quality });
  }

  /**
   * @param {ImageBitmap} bitmap
   * @param {number} at
   * @returns {Segmenting}
   */
  segment(bitmap, at) {
    return this.pending.request((id) => this.worker.postMessage({ type: 'frame', id, bitmap, at }, [bitmap]));
  }

  close() {
    this.worker.terminate();
    this.pending.failAll(new UserError('The model was closed.'));
  }
}

const PROTOCOL = 'edge-deeplab.1';
/** Best first; the next one is tried where a frame has more bytes than the server takes. */
const JPEG_QUALITIES = [0.92, 0.75, 0.5];

const HEADER_BYTES = 12; // number and time of a frame

/** What the server takes at most. @typedef {{bytes: number, pixels: number}} Limits */

/**
 * The model in the Python process: frames go out as JPEG, alpha comes back as PNG (demos/web/live.py).
 */
export class ServerEngine {
  /**
   * @param {WebSocket} socket
   * @param {Contract} contract
   * @param {string} title
   * @param {Limits} most
   * @param {Pending<ArrayBuffer | null>} pending
   */
  constructor(socket, contract, title, most, pending) {
    this.socket = socket;
    this.contract = contract;
    this.title = title;
    this.most = most;
    this.pending = pending;
    this.depth = 2; // one on its way while the other is worked on
    this.canvas = new OffscreenCanvas(1, 1);
    /** @type {(message: string) => void} */
    this.onLost = () => {};
  }

  /**
   * @param {{token: string | null}} options
   * @returns {Promise<ServerEngine>}
   */
  static open({ token }) {
    const url = new URL('./segment', location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    // A browser cannot set headers here; the list of protocols is the one thing it sends along.
    const socket = new WebSocket(url, token ? [PROTOCOL, `token.${token}`] : [PROTOCOL]);
    socket.binaryType = 'arraybuffer';
    /** @type {Pending<ArrayBuffer | null>} */
    const pending = new Pending();
    return new Promise((resolve, reject) => {
      /** @type {ServerEngine | undefined} */
      let engine;
      socket.onmessage = ({ data }) => {
        if (data instanceof ArrayBuffer) {
          pending.take(new DataView(data).getUint32(0, true))?.resolve(data);
          return;
        }
        const message = JSON.parse(data);
        if (message.type === 'hello') {
          engine = new ServerEngine(socket, parseContract(message.contract), message.title, message.most, pending);
          resolve(engine);
        } else if (message.type === 'dropped') {
          for (const id of message.ids) pending.take(id)?.resolve(null);
        } else {
          pending.take(message.id)?.reject(new UserError(message.why));
        }
      };
      socket.onclose = ({ reason }) => {
        const error = new UserError(
          reason ||
            (engine
              ? 'The connection to the server was lost. Is "edge-deeplab demo web" still running?'
              : 'The server refused the connection. Open the page with the address it printed.'),
        );
        pending.failAll(error);
        reject(error);
        engine?.onLost(error.message);
      };
    });
  }

  /** @param {Quality} quality */
  restart(quality) {
    this.socket.send(JSON.stringify({ type: 'restart', ...quality }));
  }

  /**
   * @param {ImageBitmap} bitmap
   * @param {number} at
   * @returns {Segmenting}
   */
  async segment(bitmap, at) {
    const picture = await this.jpeg(bitmap);
    const answer = await this.pending.request((id) => {
      if (this.socket.readyState !== WebSocket.OPEN) throw new UserError('The connection to the server was lost.');
      const header = new DataView(new ArrayBuffer(HEADER_BYTES));
      header.setUint32(0, id, true);
      header.setFloat64(4, at, true);
      this.socket.send(new Blob([header, picture]));
    });
    if (!answer) return null;
    const view = new DataView(answer);
    const [prepare, network, finish] = [4, 8, 12].map((at) => view.getFloat32(at, true));
    const matte = await createImageBitmap(new Blob([answer.slice(16)], { type: 'image/png' }), {
      colorSpaceConversion: 'none',
      premultiplyAlpha: 'none',
    });
    return { matte, times: { prepare, network, finish } };
  }

  /**
   * A frame as the server takes it; its alpha comes back as small, and is enlarged when it is drawn.
   * @param {ImageBitmap} bitmap
   */
  async jpeg(bitmap) {
    const { width, height } = within(bitmap, this.most.pixels);
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.getContext('2d', { alpha: false })?.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    let picture = new Blob();
    for (const quality of JPEG_QUALITIES) {
      picture = await this.canvas.convertToBlob({ type: 'image/jpeg', quality });
      if (picture.size + HEADER_BYTES <= this.most.bytes) break;
    }
    return picture;
  }

  close() {
    this.onLost = () => {};
    this.socket.close(1000);
  }
}
