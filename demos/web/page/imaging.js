/**
 * Pixels into tensors and network outputs into masks: what edge_deeplab/imaging.py does, in the browser.
 *
 * Resampling follows OpenCV's definitions (half-pixel centres; area averaging when both sides shrink by 2 or more),
 * so a mask made here is the mask Python makes. tests/demos/test_web_page.py compares the two.
 */
import { isBinary, scoreThreshold } from './contract.js';

/** @typedef {import('./contract.js').Contract} Contract */

/**
 * Where a frame lies inside the network's input, in input pixels.
 * @typedef {{top: number, left: number, height: number, width: number}} Placement
 */

/**
 * What is known about a frame after inference, at the frame's own size.
 * @typedef {object} Masks
 * @property {number} width
 * @property {number} height
 * @property {Uint8Array<ArrayBuffer>} labels Class ids.
 * @property {Uint8Array<ArrayBuffer>} alpha Opacity: soft for binary models, else 255 on every class but background.
 */

// From this shrink factor on, bilinear sampling skips source pixels and aliases; area averaging does not.
const AREA_FROM = 2;

// -- frame -> tensor ---------------------------------------------------------------------------

/**
 * One frame of any size -> the network's input tensor.
 * @param {Uint8ClampedArray | Uint8Array} rgba
 * @param {number} width
 * @param {number} height
 * @param {Contract} contract
 * @returns {{data: Float32Array | Uint8Array, dims: number[]}}
 */
export function preprocess(rgba, width, height, contract) {
  return pack(toInputSize(rgba, width, height, contract), contract);
}

/**
 * @param {Contract} contract
 * @param {number} width
 * @param {number} height
 * @returns {Placement}
 */
export function placement(contract, width, height) {
  if (contract.resize === 'stretch') {
    return { top: 0, left: 0, height: contract.height, width: contract.width };
  }
  const factor = Math.min(contract.height / height, contract.width / width);
  const inner = {
    height: Math.min(contract.height, Math.max(1, roundHalfEven(height * factor))),
    width: Math.min(contract.width, Math.max(1, roundHalfEven(width * factor))),
  };
  return {
    top: Math.floor((contract.height - inner.height) / 2),
    left: Math.floor((contract.width - inner.width) / 2),
    ...inner,
  };
}

/**
 * RGBA frame -> RGB bytes at the network's input size, (height, width, 3).
 * @param {Uint8ClampedArray | Uint8Array} rgba
 * @param {number} width
 * @param {number} height
 * @param {Contract} contract
 */
function toInputSize(rgba, width, height, contract) {
  const place = placement(contract, width, height);
  const inner = resizeFrame(rgba, width, height, place.width, place.height);
  if (place.width === contract.width && place.height === contract.height) return inner;
  const canvas = new Uint8Array(contract.width * contract.height * 3);
  const mean = contract.channels === 'RGB' ? contract.mean : [...contract.mean].reverse();
  const padding = mean.map((m) => Math.min(255, Math.max(0, roundHalfEven(m))));
  for (let at = 0; at < canvas.length; at++) canvas[at] = padding[at % 3];
  for (let y = 0; y < place.height; y++) {
    const row = inner.subarray(y * place.width * 3, (y + 1) * place.width * 3);
    canvas.set(row, ((place.top + y) * contract.width + place.left) * 3);
  }
  return canvas;
}

/**
 * RGB bytes at input size -> tensor with a batch axis of 1.
 * @param {Uint8Array} rgb
 * @param {Contract} contract
 */
function pack(rgb, { width, height, channels, mean, std, layout, dtype }) {
  const size = width * height;
  const data = dtype === 'uint8' ? new Uint8Array(size * 3) : new Float32Array(size * 3);
  const [pixelStep, planeStep] = layout === 'NHWC' ? [3, 1] : [1, size];
  for (let c = 0; c < 3; c++) {
    const from = channels === 'RGB' ? c : 2 - c;
    const factor = dtype === 'uint8' ? 1 : Math.fround(1 / std[c]);
    const offset = dtype === 'uint8' ? 0 : Math.fround(mean[c] / std[c]);
    for (let i = 0; i < size; i++) data[i * pixelStep + c * planeStep] = Math.fround(rgb[i * 3 + from] * factor) - offset;
  }
  return { data, dims: layout === 'NHWC' ? [1, height, width, 3] : [1, 3, height, width] };
}

// -- resampling --------------------------------------------------------------------------------

/**
 * RGBA -> RGB at another size: bilinear, or area averaging when both sides shrink by 2 or more.
 * @param {Uint8ClampedArray | Uint8Array} rgba
 * @param {number} width
 * @param {number} height
 * @param {number} toWidth
 * @param {number} toHeight
 */
export function resizeFrame(rgba, width, height, toWidth, toHeight) {
  const taps = Math.min(width / toWidth, height / toHeight) >= AREA_FROM ? areaTaps : linearTaps;
  const across = taps(width, toWidth);
  const down = taps(height, toHeight);
  const rowLength = toWidth * 3;
  const rows = new Float32Array(height * rowLength);
  for (let y = 0; y < height; y++) {
    for (let x = 0, out = y * rowLength; x < toWidth; x++, out += 3) {
      let at = (y * width + across.first[x]) * 4;
      for (let k = across.start[x]; k < across.start[x + 1]; k++, at += 4) {
        const weight = across.weights[k];
        rows[out] += rgba[at] * weight;
        rows[out + 1] += rgba[at + 1] * weight;
        rows[out + 2] += rgba[at + 2] * weight;
      }
    }
  }
  const result = new Uint8Array(toHeight * rowLength);
  const sums = new Float32Array(rowLength);
  for (let y = 0; y < toHeight; y++) {
    sums.fill(0);
    let at = down.first[y] * rowLength;
    for (let k = down.start[y]; k < down.start[y + 1]; k++) {
      const weight = down.weights[k];
      for (let i = 0; i < rowLength; i++) sums[i] += rows[at++] * weight;
    }
    for (let i = 0, out = y * rowLength; i < rowLength; i++) result[out++] = sums[i] + 0.5;
  }
  return result;
}

/**
 * For every output position the first source position and the weights from there on: weights
 * `start[i]` up to `start[i + 1]` belong to output i.
 * @typedef {{first: Int32Array, start: Int32Array, weights: Float32Array}} Taps
 */

/**
 * @param {number} to
 * @param {(i: number) => [number, number[]]} weigh First source position and its weights, for output i.
 * @returns {Taps}
 */
function tapsOf(to, weigh) {
  const first = new Int32Array(to);
  const start = new Int32Array(to + 1);
  const all = [];
  for (let i = 0; i < to; i++) {
    const [from, weights] = weigh(i);
    first[i] = from;
    all.push(...weights);
    start[i + 1] = all.length;
  }
  return { first, start, weights: new Float32Array(all) };
}

/**
 * Two neighbours, weighted by the distance to the centre of output pixel i.
 * @param {number} from
 * @param {number} to
 */
function linearTaps(from, to) {
  const step = from / to;
  return tapsOf(to, (i) => {
    const center = Math.min(from - 1, Math.max(0, (i + 0.5) * step - 0.5));
    const left = Math.min(Math.floor(center), Math.max(0, from - 2));
    return from === 1 ? [0, [1]] : [left, [1 - (center - left), center - left]];
  });
}

/**
 * Every source pixel under output pixel i, weighted by how much of it lies there.
 * @param {number} from
 * @param {number} to
 */
function areaTaps(from, to) {
  const step = from / to;
  return tapsOf(to, (i) => {
    const begin = i * step;
    const end = Math.min(from, begin + step);
    const weights = [];
    let first = -1;
    for (let s = Math.floor(begin); s < end && s < from; s++) {
      const covered = Math.min(s + 1, end) - Math.max(s, begin);
      if (covered < 1e-3) continue; // rounding of `begin`, not a pixel
      if (first < 0) first = s;
      weights.push(covered);
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((w) => w / sum)];
  });
}

// -- network output -> masks -------------------------------------------------------------------

/**
 * One picture's network output -> class ids and opacity at the frame's own size.
 * @param {Float32Array | Uint8Array} output Planes or interleaved, as the contract's layout says.
 * @param {Contract} contract
 * @param {number} width
 * @param {number} height
 * @returns {Masks}
 */
export function postprocess(output, contract, width, height) {
  const view = new MapView(contract, width, height);
  if (contract.head === 'classmap') return labelled(view.nearest(output), width, height);
  const planes = planesOf(output, contract, view.mapWidth * view.mapHeight);
  if (isBinary(contract)) return cut(view.linear(planes[0]), contract, width, height);
  return labelled(argmax(planes, view), width, height);
}

/**
 * Network output resampled to the frame. Pixel x of the frame has its centre at `offset + x * step` of the map.
 */
class MapView {
  /**
   * @param {Contract} contract
   * @param {number} width
   * @param {number} height
   */
  constructor(contract, width, height) {
    const place = placement(contract, width, height);
    this.mapWidth = Math.ceil(contract.width / contract.head_stride);
    this.mapHeight = Math.ceil(contract.height / contract.head_stride);
    this.across = axis(width, place.left, place.width, contract.width / this.mapWidth, this.mapWidth);
    this.down = axis(height, place.top, place.height, contract.height / this.mapHeight, this.mapHeight);
  }

  /** @param {Float32Array | Uint8Array} plane */
  linear(plane) {
    const { across, down, mapWidth } = this;
    const result = new Float32Array(across.low.length * down.low.length);
    const row = new Float32Array(mapWidth);
    for (let y = 0, out = 0; y < down.low.length; y++) {
      const top = down.low[y] * mapWidth;
      const bottom = down.high[y] * mapWidth;
      const part = down.part[y];
      for (let x = 0; x < mapWidth; x++) {
        row[x] = plane[top + x] + (plane[bottom + x] - plane[top + x]) * part;
      }
      for (let x = 0; x < across.low.length; x++) {
        const left = row[across.low[x]];
        result[out++] = left + (row[across.high[x]] - left) * across.part[x];
      }
    }
    return result;
  }

  /** @param {Float32Array | Uint8Array} plane */
  nearest(plane) {
    const { across, down, mapWidth } = this;
    const result = new Uint8Array(across.low.length * down.low.length);
    for (let y = 0, out = 0; y < down.low.length; y++) {
      const row = (down.part[y] < 0.5 ? down.low[y] : down.high[y]) * mapWidth;
      for (let x = 0; x < across.low.length; x++) {
        result[out++] = plane[row + (across.part[x] < 0.5 ? across.low[x] : across.high[x])];
      }
    }
    return result;
  }
}

/**
 * Neighbours on the map of every position along one axis of the frame, and how near it is to the second.
 * @param {number} length Of the frame, in pixels.
 * @param {number} begin Where the frame begins in the network's input.
 * @param {number} inner The frame's length there.
 * @param {number} stride Input pixels per map pixel.
 * @param {number} mapLength
 */
function axis(length, begin, inner, stride, mapLength) {
  const step = inner / length / stride;
  const offset = begin / stride + step / 2 - 0.5;
  const low = new Int32Array(length);
  const high = new Int32Array(length);
  const part = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    const center = Math.min(mapLength - 1, Math.max(0, offset + i * step));
    low[i] = Math.floor(center);
    high[i] = Math.min(low[i] + 1, mapLength - 1);
    part[i] = center - low[i];
  }
  return { low, high, part };
}

/**
 * @param {Float32Array | Uint8Array} output
 * @param {Contract} contract
 * @param {number} size Pixels of one plane.
 */
function planesOf(output, contract, size) {
  const count = isBinary(contract) ? 1 : contract.classes.length;
  return Array.from({ length: count }, (_, k) => {
    if (contract.layout === 'NCHW' || count === 1) return output.subarray(k * size, (k + 1) * size);
    return Float32Array.from({ length: size }, (_, i) => output[i * count + k]);
  });
}

/**
 * @param {(Float32Array | Uint8Array)[]} planes
 * @param {MapView} view
 */
function argmax(planes, view) {
  const best = view.linear(planes[0]);
  const labels = new Uint8Array(best.length);
  for (let k = 1; k < planes.length; k++) {
    const plane = view.linear(planes[k]);
    for (let i = 0; i < best.length; i++) {
      if (plane[i] > best[i]) {
        best[i] = plane[i];
        labels[i] = k;
      }
    }
  }
  return labels;
}

// A table of the sigmoid: 256 steps per unit keep 8-bit alpha within 1 of the exact value.
const TABLE_STEPS = 256;
const TABLE_END = 8; // beyond it alpha is 0 or 255
const SIGMOID = Uint8Array.from({ length: 2 * TABLE_END * TABLE_STEPS }, (_, i) =>
  roundHalfEven(255 / (1 + Math.exp(TABLE_END - (i + 0.5) / TABLE_STEPS))),
);

/**
 * Scores of a binary model -> its masks.
 * @param {Float32Array} scores
 * @param {Contract} contract
 * @param {number} width
 * @param {number} height
 * @returns {Masks}
 */
function cut(scores, contract, width, height) {
  const threshold = Math.fround(scoreThreshold(contract));
  const labels = new Uint8Array(scores.length);
  const alpha = new Uint8Array(scores.length);
  const probability = contract.head === 'probability';
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i];
    labels[i] = score >= threshold ? 1 : 0;
    if (probability) alpha[i] = score * 255 + 0.5;
    else if (score >= TABLE_END) alpha[i] = 255;
    else if (score > -TABLE_END) alpha[i] = SIGMOID[(score + TABLE_END) * TABLE_STEPS | 0];
  }
  return { width, height, labels, alpha };
}

/**
 * @param {Uint8Array<ArrayBuffer>} labels
 * @param {number} width
 * @param {number} height
 * @returns {Masks}
 */
function labelled(labels, width, height) {
  return { width, height, labels, alpha: labels.map((label) => (label ? 255 : 0)) };
}

/**
 * Python's round(): halves go to the even neighbour.
 * @param {number} value
 */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
