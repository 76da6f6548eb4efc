/**
 * Draws a frame and its matte in one of the modes, with WebGL 2.
 */
import { UserError } from './errors.js';
import { Graphics } from './graphics.js';
import { MATTE, MEAN, MOST_REACH, SHRINK, VIEWS } from './shaders.js';

/** @typedef {import('./matte.js').Lines} Lines */
/** @typedef {import('./graphics.js').Target} Target */
/** @typedef {'blur' | 'replace' | 'cutout' | 'mask'} Effect */

/**
 * How to draw.
 * @typedef {object} Look
 * @property {Effect} effect
 * @property {boolean} beside The camera's picture stands beside it.
 * @property {number} blur Strength; 1 is a standard deviation of 1/60 of the frame's long side.
 * @property {boolean} mirror
 * @property {TexImageSource} backdrop What stands behind the person with effect `replace`.
 */

/** A frame on the GPU. @typedef {{texture: WebGLTexture, width: number, height: number}} Held */

// As in edge_deeplab/composite.py.
const SMALL = 240; // long side of the pictures that are blurred
const BAND = 1 / 48; // radius in which colours are gathered at an edge, of the long side

const MOST_WIDTH = 4096; // of the canvas: more than this not every graphics device can draw

const LIGHT = 10; // long side of the backdrop's mipmap whose pixels are as wide as the blur of its light

// Weights by alpha: slope, offset, least.
const NO_PERSON = [-8, 1, 1e-4];
const SURELY_BEHIND = [-4, 1, 1e-3];
const SURELY_PERSON = [4, -3, 1e-3];
const BEHIND = [-1, 1, 0];
const WEIGHED = [0, 0, 0];

export class Compositor {
  /** @param {HTMLCanvasElement | OffscreenCanvas} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    const gl = /** @type {WebGL2RenderingContext | null} */ (
      canvas.getContext('webgl2', { antialias: false, depth: false })
    );
    if (!gl) throw new UserError('This browser has no WebGL 2, which draws the result. Update it or turn it on.');
    this.gl = gl;
    this.graphics = new Graphics(gl);
    /** @type {Held | null} */
    this.frame = null;
    /** @type {Held[]} */
    this.spare = [];
    this.lines = this.graphics.texture(gl.LINEAR);
    this.backdrop = this.graphics.texture(gl.LINEAR_MIPMAP_LINEAR);
    this.alpha = this.graphics.target();
    this.small = this.graphics.target();
    this.between = this.graphics.target();
    this.behind = this.graphics.target();
    this.person = this.graphics.target();
    this.edge = this.graphics.target();
    /** @type {{source: TexImageSource | null, width: number, height: number}} */
    this.shownBackdrop = { source: null, width: 1, height: 1 };
  }

  /**
   * Copy a frame to the GPU until `show` or `drop` is called with it.
   * @param {ImageBitmap} bitmap
   * @returns {Held}
   */
  hold(bitmap) {
    const { gl } = this;
    const held = this.spare.pop() ?? { texture: this.graphics.texture(gl.LINEAR), width: 0, height: 0 };
    this.graphics.upload(held.texture, bitmap);
    return Object.assign(held, { width: bitmap.width, height: bitmap.height });
  }

  /** @param {Held} held */
  drop(held) {
    this.spare.push(held);
  }

  /**
   * Make a held frame and its matte the ones that `draw` draws.
   * @param {Held} held
   * @param {Lines | ImageBitmap} matte
   */
  show(held, matte) {
    const { gl, graphics } = this;
    if (this.frame) this.spare.push(this.frame);
    this.frame = held;
    graphics.size(this.alpha, held.width, held.height, gl.R8);
    if (matte instanceof ImageBitmap) {
      graphics.upload(this.lines, matte);
      graphics.draw(this.alpha, VIEWS.camera, {}, { frame: this.lines });
      matte.close();
      return;
    }
    gl.bindTexture(gl.TEXTURE_2D, this.lines);
    const { width, height, values } = matte;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RG16F, width, height, 0, gl.RG, gl.FLOAT, values);
    graphics.draw(
      this.alpha,
      MATTE,
      { refined: [matte.refined ? 1 : 0] },
      { frame: held.texture, lines: this.lines },
    );
  }

  /** @param {Look} look */
  draw(look) {
    const { frame, canvas } = this;
    if (!frame) return;
    const count = look.beside ? 2 : 1;
    const factor = Math.min(1, MOST_WIDTH / (count * frame.width));
    const width = Math.round(frame.width * factor);
    const height = Math.round(frame.height * factor);
    if (canvas.width !== count * width || canvas.height !== height) {
      canvas.width = count * width;
      canvas.height = height;
    }
    this.gather(frame, look);
    if (look.beside) this.compose('camera', frame, look, { left: 0, width, height });
    this.compose(look.effect, frame, look, { left: (count - 1) * width, width, height });
  }

  /**
   * Mean colours of background and person around every pixel, on small pictures.
   * @param {Held} frame
   * @param {Look} look
   */
  gather(frame, { effect, blur }) {
    if (effect === 'mask') return;
    const { graphics, small } = this;
    const factor = Math.min(1, SMALL / Math.max(frame.width, frame.height));
    const width = Math.max(1, Math.round(frame.width * factor));
    const height = Math.max(1, Math.round(frame.height * factor));
    for (const target of [small, this.between, this.behind, this.person, this.edge]) {
      graphics.size(target, width, height, graphics.precise);
    }
    graphics.draw(
      small,
      SHRINK,
      { texel: [1 / width, 1 / height] },
      { frame: frame.texture, alpha: this.alpha.texture },
    );
    const long = Math.max(width, height);
    if (effect === 'blur') {
      this.mean(this.behind, NO_PERSON, bell((blur * long) / 60));
      return;
    }
    const near = box(Math.max(1, Math.round(BAND * long)));
    this.mean(this.behind, SURELY_BEHIND, near);
    this.mean(this.person, SURELY_PERSON, near);
    if (effect === 'replace') this.mean(this.edge, BEHIND, bell(BAND * long));
  }

  /**
   * @param {Target} into
   * @param {number[]} weights
   * @param {number[]} window By distance.
   */
  mean(into, [slope, offset, least], window) {
    const { graphics, small, between } = this;
    const weigh = [slope, offset, least && Math.max(least, graphics.least)];
    const values = { window, reach: [window.length - 1] };
    graphics.draw(between, MEAN, { ...values, direction: [1, 0], weigh }, { picture: small.texture });
    graphics.draw(into, MEAN, { ...values, direction: [0, 1], weigh: WEIGHED }, { picture: between.texture });
  }

  /**
   * @param {string} view A key of VIEWS.
   * @param {Held} frame
   * @param {Look} look
   * @param {import('./graphics.js').Part} part Of the canvas.
   */
  compose(view, frame, look, part) {
    if (view === 'replace') this.useBackdrop(look.backdrop);
    const { width, height } = this.shownBackdrop;
    const aspect = width / height / (frame.width / frame.height);
    this.graphics.draw(
      part,
      VIEWS[view],
      {
        // The canvas's rows run upwards, the pictures' downwards.
        view: [look.mirror ? -1 : 1, -1, look.mirror ? 1 : 0, 1],
        cover: aspect > 1 ? [1 / aspect, 1] : [1, aspect],
        lightLevel: [Math.max(0, Math.log2(Math.max(width, height) / LIGHT))],
      },
      {
        frame: frame.texture,
        alpha: this.alpha.texture,
        behind: this.behind.texture,
        person: this.person.texture,
        edge: this.edge.texture,
        backdrop: this.backdrop,
      },
    );
  }

  /** @param {TexImageSource} source */
  useBackdrop(source) {
    const moves = source instanceof HTMLVideoElement;
    if (!moves && source === this.shownBackdrop.source) return;
    if (moves && source.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    const [width, height] = moves
      ? [source.videoWidth, source.videoHeight]
      : [/** @type {ImageBitmap} */ (source).width, /** @type {ImageBitmap} */ (source).height];
    this.shownBackdrop = { source, width, height };
    this.graphics.upload(this.backdrop, source);
    this.gl.generateMipmap(this.gl.TEXTURE_2D);
  }
}

/**
 * A Gaussian by distance, from 0 on; all of it, to both sides, sums up to 1.
 * @param {number} sigma In pixels.
 */
function bell(sigma) {
  const wide = Math.max(0.3, sigma);
  const reach = Math.min(MOST_REACH, Math.ceil(3 * wide));
  const values = Array.from({ length: reach + 1 }, (_, i) => Math.exp((-0.5 * i * i) / (wide * wide)));
  const sum = 2 * values.reduce((a, b) => a + b) - values[0];
  return values.map((value) => value / sum);
}

/**
 * The same for a plain mean.
 * @param {number} radius In pixels.
 */
function box(radius) {
  return Array(radius + 1).fill(1 / (2 * radius + 1));
}
