/**
 * Source -> engine -> screen. The newest frame wins: while the engine is busy, frames pass by and are counted,
 * and as soon as it is free it gets the frame the camera shows then. No queue ever builds up.
 */

/** @typedef {import('./sources.js').Source} Source */
/** @typedef {import('./engines.js').Engine} Engine */
/** @typedef {import('./engines.js').Times} Times */
/** @typedef {import('./compositor.js').Compositor} Compositor */

/**
 * What happened in the last second or so.
 * @typedef {object} Figures
 * @property {number} fps Frames shown per second.
 * @property {number} latency Milliseconds from grabbing a frame to drawing it, median.
 * @property {number} dropped Frames since the start that passed by unseen.
 * @property {Times} times Medians by stage.
 */

const WINDOW_MS = 2000;

export class Pipeline {
  /**
   * @param {object} parts
   * @param {Source} parts.source
   * @param {Engine} parts.engine Told to restart by whoever makes the pipeline.
   * @param {Compositor} parts.compositor
   * @param {() => void} parts.onFrame Called when there is something new to draw.
   * @param {(error: unknown) => void} parts.onError
   */
  constructor({ source, engine, compositor, onFrame, onError }) {
    this.source = source;
    this.engine = engine;
    this.compositor = compositor;
    this.onFrame = onFrame;
    this.onError = onError;
    this.stopped = false;
    this.paused = false;
    this.working = 0;
    /** Frames seen since the last one grabbed. */
    this.fresh = 0;
    this.dropped = 0;
    /** @type {{at: number, latency: number, times: Times}[]} */
    this.shown = [];
  }

  start() {
    this.source.start(() => {
      this.fresh++;
      this.pump();
    });
  }

  stop() {
    this.stopped = true;
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    this.shown = [];
    this.fresh = Math.min(this.fresh, 1);
    this.pump();
  }

  async pump() {
    if (this.fresh === 0 || this.working >= this.engine.depth || this.paused || this.stopped) return;
    this.dropped += this.fresh - 1;
    this.fresh = 0;
    this.working++;
    try {
      await this.one();
    } catch (error) {
      if (!this.stopped) this.onError(error);
      this.stopped = true;
    }
    this.working--;
    this.pump();
  }

  async one() {
    const { source, engine, compositor } = this;
    const begin = performance.now();
    const bitmap = await source.grab();
    const held = compositor.hold(bitmap);
    const answer = await engine.segment(bitmap, begin).catch((error) => {
      compositor.drop(held);
      throw error;
    });
    if (!answer || this.stopped || this.paused) {
      compositor.drop(held);
      if (answer?.matte instanceof ImageBitmap) answer.matte.close();
      if (this.paused) this.fresh = Math.max(1, this.fresh); // a picture's only frame is wanted afterwards
      else this.dropped++;
      return;
    }
    compositor.show(held, answer.matte);
    this.onFrame();
    const at = performance.now();
    this.shown.push({ at, latency: at - begin, times: answer.times });
  }

  /** @returns {Figures | null} Null where frames do not flow. */
  figures() {
    const now = performance.now();
    this.shown = this.shown.filter(({ at }) => now - at < WINDOW_MS);
    if (this.shown.length < 2) return null;
    const span = this.shown[this.shown.length - 1].at - this.shown[0].at;
    /** @param {(entry: {latency: number, times: Times}) => number} of */
    const median = (of) => this.shown.map(of).sort((a, b) => a - b)[this.shown.length >> 1];
    return {
      fps: (1000 * (this.shown.length - 1)) / span,
      latency: median(({ latency }) => latency),
      dropped: this.dropped,
      times: {
        prepare: median(({ times }) => times.prepare),
        network: median(({ times }) => times.network),
        finish: median(({ times }) => times.finish),
      },
    };
  }
}
