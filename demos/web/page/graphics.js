/** WebGL 2, in short: textures, pictures to draw into, and programs that cover them. */
import { UserError } from './errors.js';
import { COVER } from './shaders.js';

/**
 * A picture that can be drawn into and read.
 * @typedef {{texture: WebGLTexture, buffer: WebGLFramebuffer, width: number, height: number}} Target
 */

/** A part of the canvas, in pixels. @typedef {{left: number, width: number, height: number}} Part */

const WHOLE = [1, 1, 0, 0];

/**
 * How a uniform that is a vector is set; all others are a number or an array of them.
 * @type {Record<string, 'uniform2fv' | 'uniform3fv' | 'uniform4fv'>}
 */
const VECTORS = {
  view: 'uniform4fv',
  texel: 'uniform2fv',
  direction: 'uniform2fv',
  cover: 'uniform2fv',
  weigh: 'uniform3fv',
};

export class Graphics {
  /** @param {WebGL2RenderingContext} gl */
  constructor(gl) {
    this.gl = gl;
    /** @type {Map<string, WebGLProgram>} */
    this.programs = new Map();
    // Sums of weights need more than 8 bits; nearly every device can draw into 16.
    const floats = gl.getExtension('EXT_color_buffer_float') ?? gl.getExtension('EXT_color_buffer_half_float');
    this.precise = floats ? gl.RGBA16F : gl.RGBA8;
    /** The least weight that such a picture can hold, with some of its colour. */
    this.least = floats ? 0 : 1 / 32;
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.bindVertexArray(gl.createVertexArray());
  }

  /** @param {number} filter For shrinking. */
  texture(filter) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  /** @returns {Target} Without pixels until `size` gives it some. */
  target() {
    return { texture: this.texture(this.gl.LINEAR), buffer: this.gl.createFramebuffer(), width: 0, height: 0 };
  }

  /**
   * @param {Target} target
   * @param {number} width
   * @param {number} height
   * @param {number} format
   */
  size(target, width, height, format) {
    const { gl } = this;
    if (target.width === width && target.height === height) return;
    // Storage cannot be resized.
    gl.deleteTexture(target.texture);
    target.texture = this.texture(gl.LINEAR);
    gl.texStorage2D(gl.TEXTURE_2D, 1, format, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.buffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.texture, 0);
    Object.assign(target, { width, height });
  }

  /**
   * @param {WebGLTexture} texture
   * @param {TexImageSource} source
   */
  upload(texture, source) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, source);
  }

  /**
   * Cover a target, or a part of the canvas, with what a fragment shader makes of some textures.
   * @param {Target | Part} into
   * @param {string} shader
   * @param {Record<string, number[]>} values Of its uniforms.
   * @param {Record<string, WebGLTexture>} textures
   */
  draw(into, shader, values, textures) {
    const { gl } = this;
    const program = this.program(shader);
    gl.useProgram(program);
    gl.bindFramebuffer(gl.FRAMEBUFFER, 'buffer' in into ? into.buffer : null);
    gl.viewport('left' in into ? into.left : 0, 0, into.width, into.height);
    Object.entries(textures).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(gl.getUniformLocation(program, name), unit);
    });
    gl.activeTexture(gl.TEXTURE0);
    for (const [name, value] of Object.entries({ view: WHOLE, ...values })) {
      const set = VECTORS[name] ?? 'uniform1fv';
      gl[set](gl.getUniformLocation(program, name), value);
    }
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** @param {string} source Of the fragment shader. */
  program(source) {
    const { gl } = this;
    const known = this.programs.get(source);
    if (known) return known;
    const program = gl.createProgram();
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
