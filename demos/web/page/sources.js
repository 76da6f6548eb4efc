/**
 * Where frames come from: the camera, or a picture or video that the visitor opens. Nothing is stored.
 */
import { UserError } from './errors.js';

/** What browsers call a camera's failures -> what to tell the visitor. @type {Record<string, string>} */
const CAMERA_FAILURES = {
  NotAllowedError:
    'The camera is blocked. Allow it for this page (the camera symbol beside the address, or the system\u2019s ' +
    'privacy settings), then start it again.',
  NotFoundError: 'No camera was found. Plug one in and try again, or open a picture or video instead.',
  NotReadableError: 'The camera is in use by another program. Close that one, then start it again.',
  AbortError: 'The camera stopped while starting. Try again.',
  OverconstrainedError: 'The chosen camera is gone. Choose another one.',
};

/** A frame has at most the pixels of 4K, and sides that every graphics device takes; larger ones are shrunk. */
const MOST_PIXELS = 3840 * 2160;
const MOST_SIDE = 4096;

/**
 * A stream of frames.
 * @typedef {object} Source
 * @property {string} name
 * @property {boolean} live A camera: mirrored unless the visitor says otherwise.
 * @property {(onFrame: () => void) => void} start Calls `onFrame`, and no function given before, for every new frame.
 * @property {() => Promise<ImageBitmap>} grab The newest frame.
 * @property {() => void} stop
 */

/** @returns {Promise<[string, string][]>} Ids and names of the cameras; browsers tell them once one was allowed. */
export async function listCameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices
    .filter(({ kind, deviceId }) => kind === 'videoinput' && deviceId)
    .map(({ deviceId, label }, index) => [deviceId, label || `Camera ${index + 1}`]);
}

/**
 * @param {{deviceId: string | null, height: number, onEnded: (message: string) => void}} options
 * @returns {Promise<Source>}
 */
export async function openCamera({ deviceId, height, onEnded }) {
  if (!navigator.mediaDevices) {
    throw new UserError(
      'Browsers give a camera only to pages from this computer (http://localhost) or over https. ' +
        'Open the page that way, or open a picture or video instead.',
    );
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: {
        ...(deviceId ? { deviceId: { exact: deviceId } } : { facingMode: 'user' }),
        height: { ideal: height },
        width: { ideal: Math.round((height * 4) / 3) },
        frameRate: { ideal: 30 },
      },
    });
  } catch (error) {
    const name = error instanceof Error ? error.name : '';
    throw new UserError(CAMERA_FAILURES[name] ?? `The camera could not be started (${name || error}).`);
  }
  const [track] = stream.getVideoTracks();
  track.addEventListener('ended', () => onEnded('The camera was unplugged or taken away. Start it again.'));
  const video = quietVideo();
  video.srcObject = stream;
  const release = () => stream.getTracks().forEach((each) => each.stop());
  try {
    await video.play();
  } catch {
    release(); // or its light would stay on
    throw new UserError(CAMERA_FAILURES.AbortError);
  }
  return videoSource(video, track.label, true, release);
}

/**
 * @param {File} file Picture or video.
 * @returns {Promise<Source>}
 */
export async function openFile(file) {
  if (!file.type.startsWith('video/')) return pictureSource(await decodePicture(file), file.name);
  const video = await decodeVideo(file);
  return videoSource(video, file.name, false, () => endVideo(video));
}

/**
 * @param {File} file
 * @returns {Promise<ImageBitmap>}
 */
export async function decodePicture(file) {
  try {
    return await shrunk(await createImageBitmap(file));
  } catch {
    throw new UserError(`${file.name} is not a picture that this browser can read.`);
  }
}

/**
 * A video that plays in a loop, without sound.
 * @param {File} file
 */
export async function decodeVideo(file) {
  const video = quietVideo();
  video.loop = true;
  video.src = URL.createObjectURL(file);
  try {
    await video.play();
  } catch {
    URL.revokeObjectURL(video.src);
    throw new UserError(`${file.name} is not a video that this browser can play.`);
  }
  if (!video.videoWidth) {
    URL.revokeObjectURL(video.src);
    throw new UserError(`${file.name} holds sound, but no pictures.`);
  }
  return video;
}

/**
 * Frees what `decodeVideo` opened: without an end it would play on unseen.
 * @param {HTMLVideoElement} video
 */
export function endVideo(video) {
  video.pause();
  URL.revokeObjectURL(video.src);
  video.removeAttribute('src');
  video.load();
}

/**
 * The size of a picture with at most so many pixels and the same aspect ratio.
 * @param {{width: number, height: number}} picture
 * @param {number} mostPixels
 */
export function within({ width, height }, mostPixels) {
  const factor = Math.min(1, MOST_SIDE / Math.max(width, height), Math.sqrt(mostPixels / (width * height)));
  return { width: Math.max(1, Math.floor(width * factor)), height: Math.max(1, Math.floor(height * factor)) };
}

/**
 * @param {ImageBitmap} bitmap
 * @returns {Promise<ImageBitmap>} The same one, or one with at most MOST_PIXELS in its place.
 */
async function shrunk(bitmap) {
  const { width, height } = within(bitmap, MOST_PIXELS);
  if (width === bitmap.width && height === bitmap.height) return bitmap;
  const smaller = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: 'high' });
  bitmap.close();
  return smaller;
}

function quietVideo() {
  const video = document.createElement('video');
  video.muted = true;
  video.playsInline = true; // iPhones play full screen otherwise
  return video;
}

/**
 * @param {ImageBitmap} bitmap
 * @param {string} name
 * @returns {Source}
 */
function pictureSource(bitmap, name) {
  return {
    name,
    live: false,
    start: (onFrame) => onFrame(),
    grab: () => createImageBitmap(bitmap),
    stop: () => bitmap.close(),
  };
}

/**
 * @param {HTMLVideoElement} video
 * @param {string} name
 * @param {boolean} live
 * @param {() => void} release
 * @returns {Source}
 */
function videoSource(video, name, live, release) {
  let running = true;
  /** @type {() => void} */
  let listener = () => {};
  const next = () => {
    if (!running) return;
    listener();
    whenNextFrame(video, next);
  };
  whenNextFrame(video, next);
  return {
    name,
    live,
    start(onFrame) {
      listener = onFrame;
    },
    grab: async () => shrunk(await createImageBitmap(video)),
    stop() {
      running = false;
      video.pause();
      release();
      video.srcObject = null;
    },
  };
}

/**
 * @param {HTMLVideoElement} video
 * @param {() => void} callback
 */
function whenNextFrame(video, callback) {
  if ('requestVideoFrameCallback' in video) {
    video.requestVideoFrameCallback(callback);
    return;
  }
  // Older browsers: look at every screen refresh whether the video has moved on.
  const { currentTime } = /** @type {HTMLVideoElement} */ (video);
  const look = () => {
    if (/** @type {HTMLVideoElement} */ (video).currentTime !== currentTime) callback();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
