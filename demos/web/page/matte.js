/**
 * From a network's answers to an alpha worth compositing with: steady over time, clean at its edges.
 *
 * What edge_deeplab/matte.py, temporal.py and refine.py do, with their constants and on the same small grid.
 * The last step, enlarging to the frame along the edges of its luma, is one line per pixel and left to the GPU:
 * the result here are the coefficients of that line (shaders.js, MATTE).
 */

/**
 * Coefficients on a grid with the frame's aspect ratio. Alpha of a pixel, both enlarged to the frame:
 * `first * luma + second`, cut to 0..1; or the sigmoid of `second` where edges are not refined.
 * @typedef {object} Lines
 * @property {number} width Of the grid.
 * @property {number} height
 * @property {Float32Array<ArrayBuffer>} values first, second, first, second ...
 * @property {boolean} refined
 */

/** Long side of the grid that averaging and filtering work on. */
const GRID = 192;
/** Logits are cut here, or one very sure answer would outlast many others. */
const SURE = 6;

// Averaging over time: temporal.py.
const MEMORY_S = 0.3;
const LINGER_S = 0.1;
const STILL = 2;
const MOVING = 4;
const REACH = 9;

// Edges: refine.py.
const RADIUS = 2;
const EPSILON = 1e-3;
const CONTRAST = 2;

/** One per stream: it remembers the frames before. */
export class Matte {
  /** @param {{smooth: boolean, refine: boolean}} options Average over time; move edges onto the picture's. */
  constructor({ smooth, refine }) {
    this.smooth = smooth;
    this.refine = refine;
    /** @type {MotionAverage | null} */
    this.average = null;
  }

  /**
   * @param {Float32Array} logits Positive on the foreground, on the grid.
   * @param {Uint8Array} luma On the grid.
   * @param {{width: number, height: number}} grid
   * @param {number} seconds Since the frame before.
   * @returns {Lines}
   */
  update(logits, luma, grid, seconds) {
    let steady = logits.map((value) => Math.min(SURE, Math.max(-SURE, value)));
    if (this.smooth) {
      if (!this.average?.fits(grid)) this.average = new MotionAverage(grid);
      steady = this.average.update(steady, luma, seconds);
    }
    const values = new Float32Array(2 * steady.length);
    if (this.refine) guidedLines(steady.map(sigmoid), luma, grid, values);
    else steady.forEach((value, i) => (values[2 * i + 1] = value));
    return { ...grid, values, refined: this.refine };
  }
}

/**
 * The grid for a frame: its aspect ratio, and never larger than it.
 * @param {number} width
 * @param {number} height
 */
export function gridFor(width, height) {
  const factor = Math.min(1, GRID / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
}

/** Average over time where the picture rests; the newest value where it moves. */
class MotionAverage {
  /** @param {{width: number, height: number}} grid */
  constructor(grid) {
    this.grid = grid;
    /** @type {Float32Array<ArrayBuffer> | null} */
    this.average = null;
    /** @type {Float32Array} */
    this.luma = new Float32Array();
    this.motion = new Float32Array(grid.width * grid.height);
  }

  /** @param {{width: number, height: number}} grid */
  fits({ width, height }) {
    return this.grid.width === width && this.grid.height === height;
  }

  /**
   * @param {Float32Array<ArrayBuffer>} logits
   * @param {Uint8Array} luma
   * @param {number} seconds
   */
  update(logits, luma, seconds) {
    const smooth = separable(new Float32Array(luma), this.grid, GAUSSIAN_RADIUS, gaussianAround);
    for (let i = 0; i < smooth.length; i++) smooth[i] = Math.round(smooth[i]); // bytes, as in OpenCV
    if (!this.average) {
      this.average = logits.slice();
    } else {
      const motion = motionBetween(this.luma, smooth, this.grid);
      const linger = Math.exp(-seconds / LINGER_S);
      const rest = 1 - Math.exp(-seconds / MEMORY_S);
      for (let i = 0; i < motion.length; i++) {
        motion[i] = Math.max(motion[i], this.motion[i] * linger);
        this.average[i] += (rest + (1 - rest) * motion[i]) * (logits[i] - this.average[i]);
      }
      this.motion = motion;
    }
    this.luma = smooth;
    return this.average.slice();
  }
}

/**
 * How surely a place moved, 0..1.
 * @param {Float32Array} before
 * @param {Float32Array} now
 * @param {{width: number, height: number}} grid
 */
function motionBetween(before, now, grid) {
  const change = now.map((value, i) => value - before[i]);
  // A camera that adjusts its exposure changes every pixel; that is no motion.
  const sample = new Float32Array(Math.ceil(grid.height / 4) * Math.ceil(grid.width / 4));
  for (let y = 0, k = 0; y < grid.height; y += 4) {
    for (let x = 0; x < grid.width; x += 4) sample[k++] = change[y * grid.width + x];
  }
  const common = median(sample);
  for (let i = 0; i < change.length; i++) {
    change[i] = Math.min(1, Math.max(0, (Math.abs(change[i] - common) - STILL) / (MOVING - STILL)));
  }
  return separable(change, grid, REACH >> 1, mostAround);
}

/**
 * Guided filter (He, Sun, Tang, ECCV 2010): in every window the line from luma to mask that fits best.
 * @param {Float32Array} mask 0..1
 * @param {Uint8Array} luma
 * @param {{width: number, height: number}} grid
 * @param {Float32Array} values Filled with slope and offset for lumas 0..1.
 */
function guidedLines(mask, luma, grid, values) {
  const mean = (/** @type {Float32Array} */ map) => separable(map, grid, RADIUS, meanAround);
  const guide = new Float32Array(mask.length);
  const product = new Float32Array(mask.length);
  const square = new Float32Array(mask.length);
  for (let i = 0; i < mask.length; i++) {
    guide[i] = luma[i] / 255;
    product[i] = guide[i] * mask[i];
    square[i] = guide[i] * guide[i];
  }
  const meanGuide = mean(guide);
  const meanMask = mean(mask);
  const meanProduct = mean(product);
  const meanSquare = mean(square);
  const slope = new Float32Array(mask.length);
  const offset = new Float32Array(mask.length);
  for (let i = 0; i < mask.length; i++) {
    const variance = meanSquare[i] - meanGuide[i] * meanGuide[i];
    slope[i] = (meanProduct[i] - meanGuide[i] * meanMask[i]) / (variance + EPSILON);
    offset[i] = meanMask[i] - slope[i] * meanGuide[i];
  }
  const meanSlope = mean(slope);
  const meanOffset = mean(offset);
  for (let i = 0; i < mask.length; i++) {
    const unsure = 4 * meanMask[i] * (1 - meanMask[i]); // 1 on the contour, 0 inside and outside
    values[2 * i] = CONTRAST * unsure * meanSlope[i];
    values[2 * i + 1] = CONTRAST * (mask[i] + unsure * (meanOffset[i] - mask[i]) - 0.5) + 0.5;
  }
}

// -- filters -----------------------------------------------------------------------------------

/**
 * What a filter makes of a line that is longer by `radius` at both ends: `count` values, `stride` apart.
 * @callback LineFilter
 * @param {Float32Array} line
 * @param {number} radius
 * @param {number} count
 * @param {Float32Array} result
 * @param {number} at Of the first value.
 * @param {number} stride
 */

/** @type {LineFilter} */
function meanAround(line, radius, count, result, at, stride) {
  const width = 2 * radius + 1;
  let sum = 0;
  for (let k = 0; k < width - 1; k++) sum += line[k];
  for (let i = 0; i < count; i++, at += stride) {
    sum += line[i + width - 1];
    result[at] = sum / width;
    sum -= line[i];
  }
}

/** @type {LineFilter} */
function mostAround(line, radius, count, result, at, stride) {
  for (let i = 0; i < count; i++, at += stride) {
    let most = line[i];
    for (let k = i + 1; k <= i + 2 * radius; k++) if (line[k] > most) most = line[k];
    result[at] = most;
  }
}

// Standard deviation 1, as wide as OpenCV makes it for bytes.
const GAUSSIAN_RADIUS = 3;
const GAUSSIAN = [-3, -2, -1, 0, 1, 2, 3].map((k) => Math.exp(-0.5 * k * k));
const GAUSSIAN_SUM = GAUSSIAN.reduce((a, b) => a + b);

/** @type {LineFilter} */
function gaussianAround(line, radius, count, result, at, stride) {
  for (let i = 0; i < count; i++, at += stride) {
    let sum = 0;
    for (let k = 0; k <= 2 * radius; k++) sum += GAUSSIAN[k] * line[i + k];
    result[at] = sum / GAUSSIAN_SUM;
  }
}

/**
 * A filter along the rows, then along the columns.
 * @param {Float32Array} map
 * @param {{width: number, height: number}} grid
 * @param {number} radius
 * @param {LineFilter} filter
 */
function separable(map, { width, height }, radius, filter) {
  return alongRows(alongRows(map, width, height, radius, filter), height, width, radius, filter);
}

/**
 * A filter along the rows; the result is transposed, so that doing it twice filters the columns, too. Beyond its
 * ends a row is mirrored (OpenCV's BORDER_REFLECT_101).
 * @param {Float32Array} map
 * @param {number} width
 * @param {number} height
 * @param {number} radius
 * @param {LineFilter} filter
 */
function alongRows(map, width, height, radius, filter) {
  const result = new Float32Array(map.length);
  const line = new Float32Array(width + 2 * radius);
  for (let y = 0; y < height; y++) {
    line.set(map.subarray(y * width, (y + 1) * width), radius);
    for (let k = 1; k <= radius; k++) {
      line[radius - k] = map[y * width + mirrored(-k, width - 1)];
      line[radius + width - 1 + k] = map[y * width + mirrored(width - 1 + k, width - 1)];
    }
    filter(line, radius, width, result, y, height);
  }
  return result;
}

/**
 * @param {number} at
 * @param {number} last
 */
function mirrored(at, last) {
  if (last === 0) return 0;
  const folded = Math.abs(at) % (2 * last);
  return folded <= last ? folded : 2 * last - folded;
}

/** @param {Float32Array} values */
function median(values) {
  const sorted = values.sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** @param {number} logit */
function sigmoid(logit) {
  return 1 / (1 + Math.exp(-logit));
}
