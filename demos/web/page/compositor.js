/**
 * Draws a frame and its masks in one of the modes, with WebGL 2.
 */
import { UserError } from './errors.js';
import { BACKGROUND_ONLY, BLUR, COMPOSE, COVER } from './shaders.js';

/** @typedef {import('./imaging.js').Masks} Masks */
/** @typedef {'blur' | 'replace' | 'cutout' | 'mask' | 'side'} Mode */

/**
 * How to draw.
 * @typedef {object} Look
 * @property {Mode} mode
 * @property {number} blur Standard deviation, as a share of the frame's height.
 * @property {boolean} mirror
 * @property {TexImageSource} backdrop What stands behind the person in mode `replace`.
 * @property {number[][]} palette RGB 0..255 per class.
 */

/** A frame on the GPU. @typedef {{texture: WebGLTexture, width: number, height: number}} Held */

// The blurs work on a picture of about this height: cheap, and nobody sees it in a blur.
const SOFT_HEIGHT = 160;
// In the other modes the blurred background only tells the colour around an edge.
const EDGE_BLUR = 0.012;

export class Compositor {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext('webgl2', { antialias: false, depth: false, premultipliedAlpha: true });
    if (!gl) throw new UserError('This browser has no WebGL 2, which draws the result. Update it or turn it on.');
    this.gl = gl;
    /** @type {Held | null} */
    this.frame = null;
    /** @type {Held[]} */
    this.spare = [];
    this.alpha = this.newTexture(gl.LINEAR);
    this.labels = this.newTexture(gl.NEAREST);
    this.palette = this.newTexture(gl.NEAREST);
    this.backdrop = this.newTexture(gl.LINEAR_MIPMAP_LINEAR);
    this.soft = [0, 1].map(() => ({ texture: this.newTexture(gl.LINEAR), buffer: gl.createFramebuffer() }));
    this.softSize = { width: 0, height: 0 };
    /** @type {{source: TexImageSource | null, width: number, height: number}} */
    this.shownBackdrop = { source: null, width: 1, height: 1 };
    this.programs = new Map();
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.bindVertexArray(gl.createVertexArray());
  }

  /**
   * Copy a frame to the GPU until `show` or `drop` is called with it.
   * @param {ImageBitmap} bitmap
   * @returns {Held}
   */
  hold(bitmap) {
    const { gl } = this;
    const held = this.spare.pop() ?? { texture: this.newTexture(gl.LINEAR), width: 0, height: 0 };
    gl.bindTexture(gl.TEXTURE_2D, held.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    return Object.assign(held, { width: bitmap.width, height: bitmap.height });
  }

  /** @param {Held} held */
  drop(held) {
    this.spare.push(held);
  }

  /**
   * Make a held frame and its masks the ones that `draw` draws.
   * @param {Held} held
   * @param {Masks} masks
   */
  show(held, masks) {
    if (this.frame) this.spare.push(this.frame);
    this.frame = held;
    this.uploadGray(this.alpha, masks.alpha, masks.width, masks.height);
    this.uploadGray(this.labels, masks.labels, masks.width, masks.height);
  }

  /** @param {Look} look */
  draw(look) {
    const { frame, canvas } = this;
    if (!frame) return;
    const side = look.mode === 'side';
    const width = side ? 2 * frame.width : frame.width;
    if (canvas.width !== width || canvas.height !== frame.height) {
      canvas.width = width;
      canvas.height = frame.height;
    }
    const mode = side ? 'blur' : look.mode;
    this.soften(frame, mode === 'blur' ? look.blur : EDGE_BLUR);
    this.usePalette(look.palette);
    if (mode === 'replace') this.useBackdrop(look.backdrop);
    if (side) this.compose('camera', frame, look, 0);
    this.compose(mode, frame, look, side ? frame.width : 0);
  }

  /**
   * The background without the person, blurred, into the first small texture; its alpha channel tells how
   * much background there was.
   * @param {Held} frame
   * @param {number} blur
   */
  soften(frame, blur) {
    const { gl } = this;
    const shrink = Math.max(1, Math.round(frame.height / SOFT_HEIGHT));
    const width = Math.ceil(frame.width / shrink);
    const height = Math.ceil(frame.height / shrink);
    this.sizeSoft(width, height);
    gl.viewport(0, 0, width, height);
    const whole = [1, 1, 0, 0];
    this.into(0, BACKGROUND_ONLY, { view: whole, texel: [1 / width, 1 / height] }, {
      frame: frame.texture,
      alpha: this.alpha,
    });
    const sigma = Math.max(0.3, blur * height);
    this.into(1, BLUR, { view: whole, direction: [1 / width, 0], sigma: [sigma] }, { picture: this.soft[0].texture });
    this.into(0, BLUR, { view: whole, direction: [0, 1 / height], sigma: [sigma] }, { picture: this.soft[1].texture });
  }

  /**
   * @param {string} mode A key of COMPOSE.
   * @param {Held} frame
   * @param {Look} look
   * @param {number} left Where on the canvas it begins, in pixels.
   */
  compose(mode, frame, look, left) {
    const { gl } = this;
    const { width, height } = this.shownBackdrop;
    const aspect = width / height / (frame.width / frame.height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(left, 0, frame.width, frame.height);
    this.run(
      COMPOSE[mode],
      {
        // The canvas's rows run upwards, the pictures' downwards.
        view: [look.mirror ? -1 : 1, -1, look.mirror ? 1 : 0, 1],
        size: [frame.width, frame.height],
        cover: aspect > 1 ? [1 / aspect, 1] : [1, aspect],
        backdropLevels: [Math.log2(Math.max(width, height))],
      },
      {
        frame: frame.texture,
        alpha: this.alpha,
        labels: this.labels,
        blurred: this.soft[0].texture,
        backdrop: this.backdrop,
        palette: this.palette,
      },
    );
  }

  /** @param {number[][]} palette */
  usePalette(palette) {
    const { gl } = this;
    const bytes = new Uint8Array(256 * 4);
    palette.forEach((color, k) => bytes.set([...color, 255], 4 * k));
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
  }

  /** @param {TexImageSource} source */
  useBackdrop(source) {
    const { gl } = this;
    const moves = source instanceof HTMLVideoElement;
    if (!moves && source === this.shownBackdrop.source) return;
    if (moves && source.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    const [width, height] = moves
      ? [source.videoWidth, source.videoHeight]
      : [/** @type {ImageBitmap} */ (source).width, /** @type {ImageBitmap} */ (source).height];
    this.shownBackdrop = { source, width, height };
    gl.bindTexture(gl.TEXTURE_2D, this.backdrop);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, source);
    gl.generateMipmap(gl.TEXTURE_2D);
  }

  // -- WebGL, in short ---------------------------------------------------------------------------

  /** @param {number} filter */
  newTexture(filter) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter === gl.NEAREST ? gl.NEAREST : gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  /**
   * @param {WebGLTexture} texture
   * @param {Uint8Array} bytes
   * @param {number} width
   * @param {number} height
   */
  uploadGray(texture, bytes, width, height) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, width, height, 0, gl.RED, gl.UNSIGNED_BYTE, bytes);
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  sizeSoft(width, height) {
    const { gl } = this;
    if (this.softSize.width === width && this.softSize.height === height) return;
    this.softSize = { width, height };
    for (const { texture, buffer } of this.soft) {
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
      gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    }
  }

  /**
   * @param {number} index Of the small texture to draw into.
   * @param {string} source
   * @param {Record<string, number[]>} values
   * @param {Record<string, WebGLTexture>} textures
   */
  into(index, source, values, textures) {
    this.gl.bindFramebuffer(this.gl.FRAMEBUFFER, this.soft[index].buffer);
    this.run(source, values, textures);
  }

  /**
   * @param {string} source Of the fragment shader.
   * @param {Record<string, number[]>} values
   * @param {Record<string, WebGLTexture>} textures
   */
  run(source, values, textures) {
    const { gl } = this;
    const program = this.program(source);
    gl.useProgram(program);
    Object.entries(textures).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(gl.getUniformLocation(program, name), unit);
    });
    gl.activeTexture(gl.TEXTURE0);
    const setters = [gl.uniform1fv, gl.uniform2fv, gl.uniform3fv, gl.uniform4fv];
    for (const [name, value] of Object.entries(values)) {
      setters[value.length - 1].call(gl, gl.getUniformLocation(program, name), value);
    }
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** @param {string} source */
  program(source) {
    const { gl } = this;
    let program = this.programs.get(source);
    if (program) return program;
    program = gl.createProgram();
    for (const [type, text] of /** @type {[number, string][]} */ ([
      [gl.VERTEX_SHADER, COVER],
      [gl.FRAGMENT_SHADER, source],
    ])) {
      const shader = gl.createShader(type);
      if (!shader) throw new UserError('The browser lost its graphics device. Load the page again.');
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`a shader does not compile: ${gl.getProgramInfoLog(program)}`);
    }
    this.programs.set(source, program);
    return program;
  }
}
