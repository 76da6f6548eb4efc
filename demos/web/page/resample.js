/**
 * Pictures at other sizes, as OpenCV resamples them: half-pixel centres; halved while both sides are at least twice
 * as long, then bilinear.
 */

/** @typedef {{width: number, height: number}} Size */

// From this shrink factor on, bilinear sampling skips source pixels and aliases; averaging first does not.
const HALVE_FROM = 2;

/**
 * RGBA -> RGB at another size: halved while both sides are at least twice as long, then bilinear.
 * @param {Uint8ClampedArray | Uint8Array} rgba
 * @param {number} width
 * @param {number} height
 * @param {number} toWidth
 * @param {number} toHeight
 */
export function resizeFrame(rgba, width, height, toWidth, toHeight) {
  while (width >= HALVE_FROM * toWidth && height >= HALVE_FROM * toHeight) {
    rgba = halved(rgba, width, height);
    width >>= 1;
    height >>= 1;
  }
  const across = linearTaps(width, toWidth);
  const down = linearTaps(height, toHeight);
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
 * RGBA averaged over 2x2 pixels; an odd side loses no pixel, they weigh a little less each.
 * @param {Uint8ClampedArray | Uint8Array} rgba
 * @param {number} width
 * @param {number} height
 * @returns {Uint8Array} (height >> 1, width >> 1, 4)
 */
function halved(rgba, width, height) {
  const half = { width: width >> 1, height: height >> 1 };
  const result = new Uint8Array(half.width * half.height * 4);
  if (width % 2 || height % 2) {
    const values = new Float32Array(width * height);
    for (let c = 0; c < 4; c++) {
      for (let i = 0; i < values.length; i++) values[i] = rgba[4 * i + c];
      const small = shrink(values, { width, height }, half);
      for (let i = 0; i < small.length; i++) result[4 * i + c] = small[i] + 0.5;
    }
    return result;
  }
  for (let y = 0, out = 0; y < half.height; y++) {
    let above = 2 * y * width * 4;
    for (let x = 0; x < half.width; x++, above += 8) {
      const below = above + width * 4;
      for (let c = 0; c < 4; c++, out++) {
        result[out] = (rgba[above + c] + rgba[above + 4 + c] + rgba[below + c] + rgba[below + 4 + c] + 2) >> 2;
      }
    }
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

/**
 * The frame's luma averaged down to a grid, as OpenCV rounds it.
 * @param {Uint8ClampedArray | Uint8Array} rgba
 * @param {Size} frame
 * @param {Size} grid
 * @returns {Uint8Array}
 */
export function smallLuma(rgba, frame, grid) {
  const luma = new Float32Array(frame.width * frame.height);
  for (let i = 0, at = 0; i < luma.length; i++, at += 4) {
    luma[i] = (rgba[at] * 4899 + rgba[at + 1] * 9617 + rgba[at + 2] * 1868 + 8192) >> 14;
  }
  const small = shrink(luma, frame, grid);
  const result = new Uint8Array(small.length);
  for (let i = 0; i < small.length; i++) result[i] = small[i] + 0.5;
  return result;
}

/**
 * Area average of a frame's values on a grid no larger than it.
 * @param {Float32Array} values
 * @param {Size} frame
 * @param {Size} grid
 */
export function shrink(values, frame, grid) {
  const across = areaTaps(frame.width, grid.width);
  const down = areaTaps(frame.height, grid.height);
  const result = new Float32Array(grid.height * grid.width);
  const row = new Float32Array(frame.width);
  for (let y = 0, out = 0; y < grid.height; y++) {
    row.fill(0);
    let from = down.first[y] * frame.width;
    for (let k = down.start[y]; k < down.start[y + 1]; k++) {
      const weight = down.weights[k];
      for (let x = 0; x < frame.width; x++) row[x] += values[from++] * weight;
    }
    for (let x = 0; x < grid.width; x++) {
      let at = across.first[x];
      let sum = 0;
      for (let k = across.start[x]; k < across.start[x + 1]; k++) sum += row[at++] * across.weights[k];
      result[out++] = sum;
    }
  }
  return result;
}

/**
 * Python's round(): halves go to the even neighbour.
 * @param {number} value
 */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
