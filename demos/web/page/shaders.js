/**
 * The GPU programs of the compositor, GLSL ES 3.00. Colours inside are not premultiplied unless said.
 * All pictures are stored top row first; `uv` is (0, 0) at the top left.
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

/**
 * The background alone, premultiplied by how much it is background, so that the person never bleeds into a
 * blur of it. Averages the pixels under one pixel of the smaller picture.
 */
export const BACKGROUND_ONLY = `#version 300 es
precision highp float;
uniform sampler2D frame, alpha;
uniform vec2 texel; // of the smaller picture
in vec2 uv;
out vec4 color;
void main() {
  color = vec4(0.0);
  for (int y = 0; y < 2; y++) for (int x = 0; x < 2; x++) {
    vec2 at = uv + (vec2(x, y) - 0.5) * 0.5 * texel;
    float behind = 1.0 - texture(alpha, at).r;
    color += 0.25 * behind * vec4(texture(frame, at).rgb, 1.0);
  }
}`;

/** One direction of a Gaussian blur. */
export const BLUR = `#version 300 es
precision highp float;
uniform sampler2D picture;
uniform vec2 direction; // one pixel along x or y
uniform float sigma; // in pixels
in vec2 uv;
out vec4 color;
void main() {
  int radius = int(ceil(2.5 * sigma));
  vec4 sum = vec4(0.0);
  float weights = 0.0;
  for (int i = -radius; i <= radius; i++) {
    float weight = exp(-0.5 * float(i * i) / (sigma * sigma));
    sum += weight * texture(picture, uv + float(i) * direction);
    weights += weight;
  }
  color = sum / weights;
}`;

const COMPOSE_HEAD = `#version 300 es
precision highp float;
uniform sampler2D frame, alpha, labels, blurred, backdrop, palette;
uniform vec2 size; // of the frame
uniform vec2 cover; // scale of uv that makes the backdrop fill the frame
uniform float backdropLevels;
in vec2 uv;
out vec4 color;

// The background's colour near here, with the person taken out.
vec3 around() {
  vec4 soft = texture(blurred, uv);
  return soft.rgb / max(soft.a, 1.0 / 255.0);
}

// The person's own colour: a pixel on the edge is a mix, and the background's share is taken out of it.
vec3 person(float a) {
  vec3 mixed = texture(frame, uv).rgb;
  vec4 soft = texture(blurred, uv);
  float known = smoothstep(0.05, 0.25, soft.a);
  vec3 clean = clamp((mixed - (1.0 - a) * around()) / max(a, 0.15), 0.0, 1.0);
  return mix(mixed, clean, known);
}
`;

/**
 * One program per way to show a frame. They answer premultiplied colours: the canvas is transparent where
 * the cut-out is.
 * @type {Record<string, string>}
 */
export const COMPOSE = {
  camera: `${COMPOSE_HEAD}
void main() {
  color = vec4(texture(frame, uv).rgb, 1.0);
}`,

  blur: `${COMPOSE_HEAD}
void main() {
  float a = texture(alpha, uv).r;
  color = vec4(mix(around(), texture(frame, uv).rgb, a), 1.0);
}`,

  replace: `${COMPOSE_HEAD}
void main() {
  float a = texture(alpha, uv).r;
  vec2 at = (uv - 0.5) * cover + 0.5;
  vec3 behind = texture(backdrop, at).rgb;
  // Light wrap: a bright new background spills a little over the person's rim.
  float rim = texture(blurred, uv).a * a;
  vec3 light = textureLod(backdrop, at, backdropLevels * 0.6).rgb;
  vec3 front = person(a);
  front = mix(front, max(front, light), 0.35 * rim);
  color = vec4(mix(behind, front, a), 1.0);
}`,

  cutout: `${COMPOSE_HEAD}
void main() {
  float a = texture(alpha, uv).r;
  color = vec4(person(a) * a, a);
}`,

  mask: `${COMPOSE_HEAD}
float label(vec2 at) {
  return texture(labels, at).r;
}
void main() {
  float here = label(uv);
  vec3 picture = texture(frame, uv).rgb;
  float gray = dot(picture, vec3(0.299, 0.587, 0.114));
  if (here == 0.0) {
    color = vec4(vec3(gray * 0.35), 1.0);
    return;
  }
  vec3 tint = texelFetch(palette, ivec2(int(here * 255.0 + 0.5), 0), 0).rgb;
  vec2 step = max(1.0, round(min(size.x, size.y) / 320.0)) / size;
  bool inner = label(uv + vec2(step.x, 0)) == here && label(uv - vec2(step.x, 0)) == here
    && label(uv + vec2(0, step.y)) == here && label(uv - vec2(0, step.y)) == here;
  color = vec4(inner ? mix(picture, tint, 0.55) : tint, 1.0);
}`,
};
