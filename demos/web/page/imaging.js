/**
 * Pixels into tensors and network outputs into logits: what edge_deeplab/imaging.py does, in the browser.
 * tests/demos/web/test_agreement.py compares the two.
 */
import { isBinary } from './contract.js';
import { resizeFrame, roundHalfEven, shrink } from './resample.js';

/** @typedef {import('./contract.js').Contract} Contract */

/** @typedef {{width: number, height: number}} Size */

/**
 * Where a frame lies inside the network's input, in input pixels.
 * @typedef {{top: number, left: number, height: number, width: number}} Placement
 */

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

// -- network output -> logits ------------------------------------------------------------------

/** A label map's answer is sure: this far from the threshold, in logits. */
const CERTAIN = 16;

/**
 * One picture's network output -> how sure the model is of the foreground, on a grid over the frame.
 *
 * Logits, shifted so that they are positive where the label is foreground, whatever the threshold. Models
 * without a score answer -16 and 16 for background and everything else.
 * @param {Float32Array | Uint8Array} output Planes or interleaved, as the contract's layout says.
 * @param {Contract} contract
 * @param {Size} frame
 * @param {Size} grid
 * @returns {Float32Array}
 */
export function foregroundLogits(output, contract, frame, grid) {
  if (contract.head !== 'classmap' && isBinary(contract)) {
    const scores = new MapView(contract, frame, grid).linear(output);
    const shift = logit(contract.threshold);
    return scores.map((score) => (contract.head === 'probability' ? logit(score) : score) - shift);
  }
  const labels = labelsOf(output, contract, frame);
  const certain = new Float32Array(labels.length);
  for (let i = 0; i < labels.length; i++) certain[i] = labels[i] ? CERTAIN : -CERTAIN;
  return shrink(certain, frame, grid);
}

/**
 * Class ids of a model with several classes, at the frame's own size.
 * @param {Float32Array | Uint8Array} output
 * @param {Contract} contract
 * @param {Size} frame
 * @returns {Uint8Array}
 */
function labelsOf(output, contract, frame) {
  const view = new MapView(contract, frame, frame);
  if (contract.head === 'classmap') return view.nearest(output);
  return argmax(planesOf(output, contract, view.mapWidth * view.mapHeight), view);
}

/**
 * Network output resampled to the frame, or to a grid over it. Position x of the grid has its centre at
 * `offset + x * step` of the map.
 */
class MapView {
  /**
   * @param {Contract} contract
   * @param {Size} frame
   * @param {Size} grid
   */
  constructor(contract, frame, grid) {
    const place = placement(contract, frame.width, frame.height);
    this.mapWidth = Math.ceil(contract.width / contract.head_stride);
    this.mapHeight = Math.ceil(contract.height / contract.head_stride);
    this.across = axis(grid.width, place.left, place.width, contract.width / this.mapWidth, this.mapWidth);
    this.down = axis(grid.height, place.top, place.height, contract.height / this.mapHeight, this.mapHeight);
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
 * @param {number} length Of the grid.
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
  const count = contract.classes.length;
  return Array.from({ length: count }, (_, k) => {
    if (contract.layout === 'NCHW') return output.subarray(k * size, (k + 1) * size);
    const plane = new Float32Array(size);
    for (let i = 0; i < size; i++) plane[i] = output[i * count + k];
    return plane;
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

/** @param {number} probability */
function logit(probability) {
  const p = Math.min(1 - 1.2e-7, Math.max(1.2e-7, probability));
  return Math.log(p / (1 - p));
}
