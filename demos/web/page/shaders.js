/**
 * The GPU programs of the compositor, GLSL ES 3.00: edge_deeplab/composite.py for a graphics chip.
 * Colours inside are not premultiplied unless said. All pictures are stored top row first; `uv` is (0, 0) at the
 * top left.
 */

/** One triangle that covers the canvas; `uv` runs over the part of the picture that `view` names. */
export const COVER = `#version 300 es
uniform vec4 view; // x, y: scale of uv; z, w: offset
out vec2 uv;
void main() {
  vec2 corner = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
  gl_Position = vec4(corner, 0.0, 1.0);
  uv = (corner * 0.5 + 0.5) * view.xy + view.zw;
}`;

const HEAD = `#version 300 es
precision highp float;
in vec2 uv;
out vec4 color;
`;

/** The lines of matte.js, enlarged along the frame's luma -> alpha at the frame's size, in red. */
export const MATTE = `${HEAD}
uniform sampler2D frame, lines;
uniform float refined;
void main() {
  float luma = dot(texture(frame, uv).rgb, vec3(0.299, 0.587, 0.114));
  vec2 line = texture(lines, uv).rg;
  float alpha = refined > 0.5 ? line.r * luma + line.g : 1.0 / (1.0 + exp(-line.g));
  color = vec4(clamp(alpha, 0.0, 1.0));
}`;

/** Most pixels to either side that MEAN looks at. */
export const MOST_REACH = 48;

/** Frame and alpha at a smaller size: colour, and alpha in its fourth channel. */
export const SHRINK = `${HEAD}
uniform sampler2D frame, alpha;
uniform vec2 texel; // of the smaller picture
void main() {
  color = vec4(0.0);
  for (int y = 0; y < 4; y++) for (int x = 0; x < 4; x++) {
    vec2 at = uv + (vec2(x, y) - 1.5) * 0.25 * texel;
    color += vec4(texture(frame, at).rgb, texture(alpha, at).r) / 16.0;
  }
}`;

/**
 * One direction of a weighted mean of colours; the sum of weights goes into the fourth channel. The weight of a
 * pixel depends on its alpha, in the fourth channel of the picture; in the second direction it is there already.
 */
export const MEAN = `${HEAD}
uniform sampler2D picture;
uniform vec2 direction; // (1, 0) or (0, 1)
uniform float window[${MOST_REACH + 1}]; // by distance in pixels; all of it, to both sides, sums up to 1
uniform float reach;
uniform vec3 weigh; // weight = max(x * alpha + y, z); all 0: weighed already
vec4 at(ivec2 place, ivec2 last) {
  vec4 here = texelFetch(picture, clamp(place, ivec2(0), last), 0);
  if (weigh == vec3(0.0)) return here;
  float weight = max(weigh.x * here.a + weigh.y, weigh.z);
  return vec4(here.rgb * weight, weight);
}
void main() {
  ivec2 last = textureSize(picture, 0) - 1, place = ivec2(gl_FragCoord.xy), stride = ivec2(direction);
  color = window[0] * at(place, last);
  for (int i = 1; i <= int(reach); i++) {
    color += window[i] * (at(place - i * stride, last) + at(place + i * stride, last));
  }
}`;

const COMPOSE = `${HEAD}
uniform sampler2D frame, alpha, behind, person, edge, backdrop;
uniform vec2 cover; // scale of uv that makes the backdrop fill the frame
uniform float lightLevel; // of the backdrop's mipmaps

vec3 mean(sampler2D weighed) {
  vec4 sum = texture(weighed, uv);
  return sum.rgb / sum.a;
}

// The person's own colour: a pixel on the edge is a mix, and what the background gave to it is taken out.
// One round of the approximation by Forte (arXiv:2006.14970).
vec3 unmixed(float a) {
  vec3 mixed = texture(frame, uv).rgb;
  if (a < 0.004 || a > 0.996) return mixed;
  vec3 front = mean(person), back = mean(behind);
  return clamp(front + a * (mixed - a * front - (1.0 - a) * back), 0.0, 1.0);
}
`;

/**
 * One program per way to show a frame. They answer premultiplied colours: the canvas is transparent where
 * the cut-out is.
 * @type {Record<string, string>}
 */
export const VIEWS = {
  camera: `${COMPOSE}
void main() {
  color = vec4(texture(frame, uv).rgb, 1.0);
}`,

  blur: `${COMPOSE}
void main() {
  color = vec4(mix(mean(behind), texture(frame, uv).rgb, texture(alpha, uv).r), 1.0);
}`,

  replace: `${COMPOSE}
void main() {
  float a = texture(alpha, uv).r;
  vec2 at = (uv - 0.5) * cover + 0.5;
  // The new background's light falls around the rim of the person.
  float rim = 0.5 * max(texture(edge, uv).a - 0.01, 0.0);
  vec3 front = mix(unmixed(a), textureLod(backdrop, at, lightLevel).rgb, rim);
  color = vec4(mix(texture(backdrop, at).rgb, front, a), 1.0);
}`,

  cutout: `${COMPOSE}
void main() {
  float a = texture(alpha, uv).r;
  color = vec4(unmixed(a) * a, a);
}`,

  mask: `${COMPOSE}
void main() {
  color = vec4(vec3(texture(alpha, uv).r), 1.0);
}`,
};
